# Evaluates a Homebrew formula without Homebrew and prints what it says as JSON: which words in which order, what `install` runs,
# the service and launchd's file of it. Strict: an unknown word, a word said twice, a resource without url or sha256, two resources of one name raise.
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
      applies = { nil => here == number, or_newer: here >= number, or_older: here <= number }.fetch(condition)
      instance_eval(&block) if applies
    end
  end
end

# A block of the formula, of which each word may be said once.
class Words
  WORDS = {
    resource:  %i[url sha256 mirror version],
    livecheck: %i[url regex strategy formula skip],
    service:   %i[run run_type keep_alive working_dir log_path error_log_path environment_variables process_type
                  restart_delay throttle_interval stop_timeout require_root run_at_load nice],
  }.freeze
  PROCESS_TYPES = %i[background standard interactive adaptive].freeze
  KEEP_ALIVE = %i[always successful_exit crashed path].freeze

  attr_reader :said

  def initialize(kind)
    @said = {}
    WORDS.fetch(kind).each do |word|
      define_singleton_method(word) do |*values, **options|
        raise ArgumentError, "#{kind}: #{word} without a value" if values.empty? && options.empty?
        raise ArgumentError, "#{kind}: #{word} twice" if @said.key?(word)
        @said[word] = options.empty? ? values.first : options
      end
    end
  end

  def check_service
    type, alive = @said[:process_type], @said[:keep_alive]
    raise ArgumentError, "process_type #{type}" unless type.nil? || PROCESS_TYPES.include?(type)
    raise ArgumentError, "keep_alive #{alive}" if alive.is_a?(Hash) && !(alive.keys - KEEP_ALIVE).empty?
    whole = %i[stop_timeout throttle_interval restart_delay nice].reject { |word| @said.fetch(word, 0).is_a?(Integer) }
    raise ArgumentError, "no whole number: #{whole.join(", ")}" unless whole.empty?
  end

  def bin = Pathname("BIN")
  def opt_bin = Pathname("OPT_BIN")
  def libexec = Pathname("LIBEXEC")
  def opt_libexec = Pathname("OPT_LIBEXEC")
  def etc = Pathname("ETC")
  def var = Pathname("VAR")
  def std_service_path_env = "STD_PATH"
end

# launchd's file of a service as Homebrew writes it: Service#to_plist of Homebrew/brew in 2026-08, ExitTimeOut by its #23294.
# Our reading of it; tests/packaging/test_formula.py compares the two where Homebrew is installed.
class Plist
  SESSIONS = %w[Aqua Background LoginWindow StandardIO System].freeze

  def initialize(formula, said) = (@formula, @said = formula, said)

  def keys
    {
      Label: "homebrew.mxcl.#{@formula}", ProgramArguments: Array(@said[:run]).map(&:to_s), RunAtLoad: @said.fetch(:run_at_load, true),
      ExitTimeOut: @said[:stop_timeout], TimeOut: @said[:restart_delay], ThrottleInterval: @said[:throttle_interval],
      ProcessType: @said[:process_type]&.to_s&.capitalize, Nice: @said[:nice], WorkingDirectory: @said[:working_dir]&.to_s,
      StandardOutPath: @said[:log_path]&.to_s, StandardErrorPath: @said[:error_log_path]&.to_s,
      EnvironmentVariables: @said[:environment_variables], KeepAlive: keep_alive, LimitLoadToSessionType: SESSIONS
    }.compact
  end

  def to_s
    head = '<?xml version="1.0" encoding="UTF-8"?><plist version="1.0">'
    "#{head}#{element(keys)}</plist>"
  end

  private

  def keep_alive
    alive = @said[:keep_alive]
    return alive unless alive.is_a?(Hash)
    return { SuccessfulExit: alive[:successful_exit] } if alive.key?(:successful_exit)
    alive.key?(:crashed) ? { Crashed: alive[:crashed] } : alive[:always]
  end

  def element(value)
    case value
    when true, false then "<#{value}/>"
    when Integer then "<integer>#{value}</integer>"
    when Array then "<array>#{value.map { |one| element(one) }.join}</array>"
    when Hash then "<dict>#{value.map { |key, one| "<key>#{key}</key>#{element(one)}" }.join}</dict>"
    else "<string>#{CGI.escapeHTML(value.to_s)}</string>"
    end
  end
end

module Language
  module Python
    module Virtualenv
      Environment = Struct.new(:formula) do
        def pip_install_and_link(target, link_manpages: true, build_isolation: true)
          formula.done << ["pip_install_and_link", target.to_s, { build_isolation: build_isolation }]
        end
      end

      def virtualenv_create(root, python, system_site_packages: true)
        done << ["virtualenv_create", root.to_s, python, { system_site_packages: system_site_packages }]
        Environment.new(self)
      end
    end
  end
end

class Formula
  extend OnRelease

  # Where `man1.install` and its like note what they install.
  Folder = Struct.new(:formula, :name) do
    def install(*files) = formula.done << ["#{name}.install", *files.map(&:to_s)]
    def install_symlink(*files) = formula.done << ["#{name}.install_symlink", *files.map(&:to_s)]
    def /(other) = Pathname(name.upcase) / other
    def to_s = name.upcase
  end

  class << self
    def told = (@told ||= { order: [], depends_on: [], resources: {} })

    %i[desc homepage url sha256 license version revision].each do |word|
      define_method(word) { |value, **options| tell(word, options.empty? ? value : [value, options]) }
    end

    def head(url, branch:) = tell(:head, [url, branch])
    def preserve_rpath = tell(:preserve_rpath, true)
    def livecheck(&block) = tell(:livecheck, words(:livecheck, &block).said.transform_values { |v| v.is_a?(Regexp) ? v.source : v })

    def service(&block)
      said = words(:service, &block)
      said.check_service
      tell(:service, said.said)
      told[:plist] = Plist.new(name.downcase, said.said).to_s
    end

    def test(&block)
      raise ArgumentError, "an empty test" unless block
      tell(:test, true)
    end

    def depends_on(what)
      raise ArgumentError, "depends_on #{what} twice" if told[:depends_on].include?(what)
      told[:order] << :depends_on unless told[:order].last == :depends_on
      told[:depends_on] << what
    end

    def resource(name, &block)
      said = words(:resource, &block).said
      raise ArgumentError, "resource #{name} twice" if told[:resources].key?(name)
      raise ArgumentError, "resource #{name} without url or sha256" unless said[:url] && said[:sha256]
      told[:order] << :resource unless told[:order].last == :resource
      told[:resources][name] = said
    end

    def method_added(name)
      told[:order] << name if %i[install caveats].include?(name) && self != Formula
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

    def tell(word, value)
      raise ArgumentError, "#{word} twice" if told.key?(word)
      told[:order] << word
      told[word] = value
    end

    def words(kind, &block) = Words.new(kind).tap { |words| words.instance_eval(&block) }
  end

  def done = (@done ||= [])
  def system(*words) = done << ["system", *words.map(&:to_s)]
  def generate_completions_from_executable(*words) = done << ["completions", *words.map(&:to_s)]
  def inreplace(file, before, after) = done << ["inreplace", file.to_s, before.source, after]
  def buildpath = Pathname("BUILDPATH")
  def libexec = Pathname("LIBEXEC")
  %i[bin man1].each { |name| define_method(name) { Folder.new(self, name.to_s) } }
end

source = File.read(ARGV.fetch(0))
eval(source, TOPLEVEL_BINDING, ARGV.fetch(0))
formula = Formula.only.new
formula.install
caveats = formula.respond_to?(:caveats) ? formula.caveats : nil
puts JSON.generate(**Formula.only.told, name: Formula.only.name, install: formula.done, caveats: caveats)
