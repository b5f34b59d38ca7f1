# Evaluates a Homebrew formula without Homebrew and prints it as JSON: its stanzas in their order,
# the commands of `install`, the service and its launchd plist. Unknown or repeated stanzas,
# resources without url or sha256, and two resources with the same name raise an error.
# usage: ruby formula_dsl.rb FORMULA MACOS_VERSION     (Ruby 3.0 or newer)
require "cgi"
require "json"
require "pathname"

RELEASES = { monterey: 12, ventura: 13, sonoma: 14, sequoia: 15, tahoe: 26, golden_gate: 27 }.freeze

module MacOS
  class Release
    include Comparable
    def initialize(number) = @number = number
    attr_reader :number
    def <=>(other) = number <=> (other.is_a?(Symbol) ? RELEASES.fetch(other) : other.number)
  end
  def self.version = Release.new(Integer(ARGV.fetch(1)))
end

module OnRelease
  RELEASES.each do |name, number|
    define_method("on_#{name}") do |condition = nil, &block|
      here = MacOS.version.number
      conditions = { nil => here == number, or_newer: here >= number, or_older: here <= number }
      applies = conditions.fetch(condition)
      instance_eval(&block) if applies
    end
  end
end

# A block of the formula; each key may occur once.
class Block
  KEYS = {
    resource:  %i[url sha256 mirror version],
    livecheck: %i[url regex strategy formula skip],
    service:   %i[run run_type keep_alive working_dir log_path error_log_path environment_variables
                  process_type restart_delay throttle_interval stop_timeout require_root run_at_load
                  nice],
  }.freeze
  PROCESS_TYPES = %i[background standard interactive adaptive].freeze
  INTEGERS = %i[stop_timeout throttle_interval restart_delay nice].freeze
  KEEP_ALIVE = %i[always successful_exit crashed path].freeze

  attr_reader :values

  def initialize(kind)
    @values = {}
    KEYS.fetch(kind).each do |key|
      define_singleton_method(key) do |*arguments, **options|
        is_empty = arguments.empty? && options.empty?
        raise ArgumentError, "#{kind}: #{key} without a value" if is_empty
        raise ArgumentError, "#{kind}: #{key} twice" if @values.key?(key)
        @values[key] = options.empty? ? arguments.first : options
      end
    end
  end

  def check_service
    type, alive = @values[:process_type], @values[:keep_alive]
    raise ArgumentError, "process_type #{type}" unless type.nil? || PROCESS_TYPES.include?(type)
    is_wrong = alive.is_a?(Hash) && !(alive.keys - KEEP_ALIVE).empty?
    raise ArgumentError, "keep_alive #{alive}" if is_wrong
    wrong = INTEGERS.reject { |key| @values.fetch(key, 0).is_a?(Integer) }
    raise ArgumentError, "not an integer: #{wrong.join(", ")}" unless wrong.empty?
  end

  def bin = Pathname("BIN")
  def opt_bin = Pathname("OPT_BIN")
  def libexec = Pathname("LIBEXEC")
  def opt_libexec = Pathname("OPT_LIBEXEC")
  def etc = Pathname("ETC")
  def var = Pathname("VAR")
  def std_service_path_env = "STD_PATH"
end

# The launchd plist of a service as Homebrew writes it: Service#to_plist of Homebrew/brew in
# 2026-08, ExitTimeOut by its #23294. tests/packaging/test_formula.py compares both where Homebrew
# is installed.
class Plist
  SESSIONS = %w[Aqua Background LoginWindow StandardIO System].freeze

  def initialize(formula, values) = (@formula, @values = formula, values)

  def keys
    {
      Label: "homebrew.mxcl.#{@formula}",
      ProgramArguments: Array(@values[:run]).map(&:to_s),
      RunAtLoad: @values.fetch(:run_at_load, true),
      ExitTimeOut: @values[:stop_timeout],
      TimeOut: @values[:restart_delay],
      ThrottleInterval: @values[:throttle_interval],
      ProcessType: @values[:process_type]&.to_s&.capitalize,
      Nice: @values[:nice],
      WorkingDirectory: @values[:working_dir]&.to_s,
      StandardOutPath: @values[:log_path]&.to_s,
      StandardErrorPath: @values[:error_log_path]&.to_s,
      EnvironmentVariables: @values[:environment_variables],
      KeepAlive: keep_alive,
      LimitLoadToSessionType: SESSIONS
    }.compact
  end

  def to_s
    head = '<?xml version="1.0" encoding="UTF-8"?><plist version="1.0">'
    "#{head}#{element(keys)}</plist>"
  end

  private

  def keep_alive
    alive = @values[:keep_alive]
    return alive unless alive.is_a?(Hash)
    return { SuccessfulExit: alive[:successful_exit] } if alive.key?(:successful_exit)
    alive.key?(:crashed) ? { Crashed: alive[:crashed] } : alive[:always]
  end

  def element(value)
    case value
    when true, false then "<#{value}/>"
    when Integer then "<integer>#{value}</integer>"
    when Array then "<array>#{value.map { |one| element(one) }.join}</array>"
    when Hash then "<dict>#{value.map { |key, one| entry(key, one) }.join}</dict>"
    else "<string>#{CGI.escapeHTML(value.to_s)}</string>"
    end
  end

  def entry(key, value) = "<key>#{key}</key>#{element(value)}"
end

module Language
  module Python
    module Virtualenv
      Environment = Struct.new(:formula) do
        def pip_install_and_link(target, link_manpages: true, build_isolation: true)
          options = { build_isolation: build_isolation }
          formula.steps << ["pip_install_and_link", target.to_s, options]
        end
      end

      def virtualenv_create(root, python, system_site_packages: true)
        options = { system_site_packages: system_site_packages }
        steps << ["virtualenv_create", root.to_s, python, options]
        Environment.new(self)
      end
    end
  end
end

class Formula
  extend OnRelease

  # Records what `man1.install` and the like install.
  Folder = Struct.new(:formula, :name) do
    def install(*files) = formula.steps << ["#{name}.install", *files.map(&:to_s)]
    def install_symlink(*files) = formula.steps << ["#{name}.install_symlink", *files.map(&:to_s)]
    def /(other) = Pathname(name.upcase) / other
    def to_s = name.upcase
  end

  class << self
    def facts = (@facts ||= { order: [], depends_on: [], resources: {} })

    %i[desc homepage url sha256 license version revision].each do |stanza|
      define_method(stanza) do |value, **options|
        record(stanza, options.empty? ? value : [value, options])
      end
    end

    def head(url, branch:) = record(:head, [url, branch])
    def preserve_rpath = record(:preserve_rpath, true)

    def livecheck(&block)
      values = block_of(:livecheck, &block).values
      record(:livecheck, values.transform_values { |v| v.is_a?(Regexp) ? v.source : v })
    end

    def service(&block)
      service = block_of(:service, &block)
      service.check_service
      record(:service, service.values)
      facts[:plist] = Plist.new(name.downcase, service.values).to_s
    end

    def test(&block)
      raise ArgumentError, "an empty test" unless block
      record(:test, true)
    end

    def depends_on(what)
      raise ArgumentError, "depends_on #{what} twice" if facts[:depends_on].include?(what)
      facts[:order] << :depends_on unless facts[:order].last == :depends_on
      facts[:depends_on] << what
    end

    def resource(name, &block)
      values = block_of(:resource, &block).values
      raise ArgumentError, "resource #{name} twice" if facts[:resources].key?(name)
      is_whole = values[:url] && values[:sha256]
      raise ArgumentError, "resource #{name} without url or sha256" unless is_whole
      facts[:order] << :resource unless facts[:order].last == :resource
      facts[:resources][name] = values
    end

    def method_added(name)
      facts[:order] << name if %i[install caveats].include?(name) && self != Formula
    end

    def inherited(formula)
      super
      (@@formulae ||= []) << formula
    end

    def only
      raise ArgumentError, "one formula in a file" unless @@formulae.size == 1
      @@formulae.first
    end

    private

    def record(stanza, value)
      raise ArgumentError, "#{stanza} twice" if facts.key?(stanza)
      facts[:order] << stanza
      facts[stanza] = value
    end

    def block_of(kind, &block) = Block.new(kind).tap { |one| one.instance_eval(&block) }
  end

  def steps = (@steps ||= [])
  def system(*command) = steps << ["system", *command.map(&:to_s)]
  def generate_completions_from_executable(*command)
    steps << ["completions", *command.map(&:to_s)]
  end

  def inreplace(file, before, after) = steps << ["inreplace", file.to_s, before.source, after]
  def buildpath = Pathname("BUILDPATH")
  def libexec = Pathname("LIBEXEC")
  %i[bin man1].each { |name| define_method(name) { Folder.new(self, name.to_s) } }
end

source = File.read(ARGV.fetch(0))
eval(source, TOPLEVEL_BINDING, ARGV.fetch(0))
formula = Formula.only.new
formula.install
caveats = formula.respond_to?(:caveats) ? formula.caveats : nil
result = { name: Formula.only.name, install: formula.steps, caveats: caveats }
puts JSON.generate(**Formula.only.facts, **result)
