//go:build linux

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

// reloadable describes how to start and reload a server.
type reloadable struct {
	name, settings string
	ours           bool
	spec           func(r *run, port int) (spec, error)
	reload         func(r *run, l *loaded) error
	every          time.Duration // minimum time between two reloads
}

var reloadables = []reloadable{
	{"prefork, rolling", "{Rolling: true}", true, pooled(), hup, 0},
	{"prefork, rolling, a socket for each worker", "{Rolling: true}, ListenPerWorker", true, pooled("-each"), hup, 0},
	{"prefork, all at once", "{Signal: SIGTERM}", true, pooled(), usr1, 0},
	{"tableflip", "as in its example with net/http", false, flipping, hupNewest, 0},
	{"gunicorn", "HUP, sync workers", false, func(r *run, port int) (spec, error) { return gunicorn(r, port, serverWorkers) }, hup, 0},
	{"unicorn", "USR2, and before_fork of its examples/unicorn.conf.rb", false, replacingUnicorn, usr2Newest, 0},
	{"start_server with Starlet", "HUP, --interval 1, its default", false, startServer, hup, 2500 * time.Millisecond},
}

func pooled(args ...string) func(*run, int) (spec, error) {
	return func(r *run, port int) (spec, error) {
		web, err := r.builds.program("web", false)
		return spec{args: append([]string{web, "prefork", "-workers", strconv.Itoa(serverWorkers), "-listen", address(port)}, args...)}, err
	}
}

func flipping(r *run, port int) (spec, error) {
	web, err := r.builds.program("web", false)
	return spec{args: []string{web, "tableflip", "-listen", address(port)}}, err
}

// hupNewest signals the process that currently answers.
func hupNewest(r *run, l *loaded) error {
	answer, err := serving(r.ctx, l.program, l.port)
	if err != nil {
		return err
	}
	return signalTo(answer, syscall.SIGHUP)
}

// replacingUnicorn has the before_fork hook of unicorn's example configuration,
// which ends the previous master.
func replacingUnicorn(r *run, port int) (spec, error) {
	s, err := unicorn(r, port, serverWorkers)
	if err != nil {
		return s, err
	}
	config := fmt.Sprintf(`worker_processes %d
pid %q
before_fork do |server, worker|
  old = "#{server.config[:pid]}.oldbin"
  if File.exist?(old) && server.pid != old
    begin
      Process.kill((worker.nr + 1) >= server.worker_processes ? :QUIT : :TTOU, File.read(old).to_i)
    rescue Errno::ENOENT, Errno::ESRCH
    end
  end
end
`, serverWorkers, unicornPid(r))
	file, err := r.write("unicorn-reload.conf", config)
	for i, arg := range s.args {
		if arg == "--config-file" {
			s.args[i+1] = file
		}
	}
	return s, err
}

func unicornPid(r *run) string { return filepath.Join(r.dir, "unicorn.pid") }

// usr2Newest first waits until the previous replacement is complete. Until then
// there is no pid file, or two.
func usr2Newest(r *run, l *loaded) error {
	for began := time.Now(); ; {
		pid, err := os.ReadFile(unicornPid(r))
		_, old := os.Stat(unicornPid(r) + ".oldbin")
		if err == nil && len(pid) > 0 && errors.Is(old, fs.ErrNotExist) {
			return signalTo(string(pid), syscall.SIGUSR2)
		}
		if time.Since(began) > limit {
			return l.program.errorf("previous replacement not complete within %v: %v", limit, err)
		}
		if err := sleep(r.ctx, 10*time.Millisecond); err != nil {
			return err
		}
	}
}

func signalTo(pid string, sig syscall.Signal) error {
	n, err := strconv.Atoi(strings.TrimSpace(pid))
	if err != nil {
		return fmt.Errorf("malformed pid %q", pid)
	}
	return syscall.Kill(n, sig)
}

func startServer(r *run, port int) (spec, error) {
	path, err := command("start_server")
	if err != nil {
		return spec{}, err
	}
	s, err := starlet(r, 0, serverWorkers)
	s.args = append([]string{path, "--port", address(port), "--"}, s.args...)
	return s, err
}
