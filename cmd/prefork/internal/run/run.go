package run

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/ops/journal"
	"github.com/prefork-go/prefork/ops/service"
	"github.com/prefork-go/prefork/ops/systemd"
)

// The exit statuses of the verb, beside 0 for a stop as asked.
const (
	ExitFailed   = 1
	ExitUsage    = 2
	ExitGaveUp   = 3
	ExitLocked   = 4
	ExitNoExec   = 126
	ExitNotFound = 127
)

// A startError reports a program that cannot be executed.
type startError struct {
	code int
	err  error
}

func (e *startError) Error() string { return e.err.Error() }
func (e *startError) Unwrap() error { return e.err }

// An endedError has the exit status of the process that should have become the
// daemon. It has no text: that process has printed the reason.
type endedError struct{ code int }

func (e *endedError) Error() string { return "" }

// Status returns the exit status for an error of Run, Restart or Stop.
func Status(err error) int {
	var (
		usage  *UsageError
		start  *startError
		ended  *endedError
		config *prefork.ConfigError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &start):
		return start.code
	case errors.As(err, &ended):
		return ended.code
	case errors.As(err, &usage), errors.As(err, &config):
		return ExitUsage
	case errors.Is(err, prefork.ErrCrashLoop):
		return ExitGaveUp
	case errors.Is(err, service.ErrRunning):
		return ExitLocked
	}
	return ExitFailed
}

// A runner wires a Manager to the parts around it. Its hooks run in the goroutine
// of Run, one at a time.
type runner struct {
	*plan
	pm       *prefork.Manager
	log      *slog.Logger
	recorder recorder
	status   statusFile
	probes   *prober
	notify   *notifySocket
	journal  func(prefork.Event)
	daemon   *daemon  // nil for none
	stdin    *os.File // the socket that is standard input; nil for that of this process
	ports    string   // SERVER_STARTER_PORT, if there is such
	names    string   // LISTEN_FDNAMES

	worked   bool // a worker was ready
	replaced int  // workers of the newest generation that are ready
	newest   int
}

// Run keeps the program running until it is stopped. The manager's own messages go
// to errs. Nothing but prefork.New may have an effect before it: with --pass
// systemd, this function also runs for each worker, up to that call.
func Run(ctx context.Context, o Options, errs io.Writer) (err error) {
	p, err := o.plan()
	if err != nil {
		return err
	}
	var d *daemon
	if p.Daemonize {
		if d, err = takeDaemon(); err != nil {
			return err
		}
		if d == nil {
			return daemonize()
		}
		errs = d
	}
	r := &runner{plan: p, daemon: d, log: slog.New(slog.NewTextHandler(errs, nil)), status: statusFile{path: p.StatusFile, workers: make(map[int]int)}}
	cfg := p.config
	cfg.Logger, cfg.BeforeSpawn, cfg.AfterSpawn, cfg.OnChildReap, cfg.Observe = r.log, r.beforeSpawn, r.afterSpawn, r.onReap, r.observe
	if r.pm, err = prefork.New(cfg); err != nil {
		return flagError(err)
	}
	if r.predecessorAnswers() {
		r.log.Warn("the old worker may answer for its replacement: put %g into the address of --ready, or replace by --trap HUP=TERM/1s", "ready", r.ready.explain)
	}
	closeAll, err := r.open()
	defer closeAll()
	if err != nil {
		return err
	}
	err = r.pm.Run(ctx, nil)
	// The last lines of the workers whose end has ended Run: the loop must turn once
	// more to have them in the journal.
	r.recorder.notes.Wait()
	r.pm.WaitAllChildren(context.Background())
	return err
}

// predecessorAnswers reports whether the question to a replacement reaches the worker
// that it replaces: both have the address of their slot.
func (r *runner) predecessorAnswers() bool {
	asked := r.ready.url + r.ready.tcp
	return asked != "" && !strings.Contains(asked, "%g") && r.config.TrapSignals[syscall.SIGHUP].Rolling
}

// open opens everything that the pool needs. The function that it returns closes
// in the opposite order, also after an error.
func (r *runner) open() (closeAll func(), err error) {
	var closers []func()
	closeAll = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			closers[i]()
		}
	}
	done := func(what string, f func() error) func() {
		return func() {
			if err := f(); err != nil {
				r.log.Error("cannot close", "part", what, "err", err)
			}
		}
	}
	r.probes = newProber(r.ready, r.pm.SetReady)
	closers = append(closers, r.probes.close)
	if r.PIDFile != "" {
		s, err := newService(r.PIDFile)
		if err != nil {
			return closeAll, err
		}
		detach, err := s.Attach(r.pm)
		if err != nil {
			return closeAll, err
		}
		closers = append(closers, done("pid file", detach))
	}
	c, err := r.Open(r.Name, r.log)
	if err != nil {
		return closeAll, err
	}
	r.recorder = recorder{log: r.log, capture: c, shown: r.Log == output.Stderr, workers: make(map[int]*capture.Worker)}
	if c != nil {
		closers = append(closers, done("log", func() error {
			r.recorder.cancel()
			return c.Close(context.Background())
		}))
	}
	if r.StatusFile != "" {
		closers = append(closers, done("status file", r.status.close))
		if err := r.status.write(); err != nil {
			return closeAll, fmt.Errorf("--status-file: %w", err)
		}
	}
	if r.Journal != "" {
		j, err := journal.Open(r.Journal, journal.Config{})
		if err != nil {
			return closeAll, fmt.Errorf("--journal: %w", err)
		}
		closers = append(closers, done("journal", j.Close))
		r.journal = journal.Observer(j, r.log)
	}
	if r.ready.notify {
		if r.notify, err = listenNotify(r.pm.SetReady); err != nil {
			return closeAll, err
		}
		closers = append(closers, r.notify.close)
	}
	detach, err := r.attach()
	closers = append(closers, detach)
	if err != nil {
		return closeAll, err
	}
	return closeAll, r.listen()
}

// attach opens the control socket and notifies systemd. A socket that the user has
// not asked for is no reason to fail.
func (r *runner) attach() (detach func(), err error) {
	cfg := control.Config{Path: r.Control}
	if c := r.recorder.capture; c != nil {
		cfg.Tail = output.Tail(c.Capture)
	}
	closeSocket, err := control.Attach(cfg, r.pm)
	if err != nil {
		if r.Control != "" {
			return func() {}, fmt.Errorf("--control: %w", err)
		}
		r.log.Warn("no control socket", "err", err)
		closeSocket = func() error { return nil }
	}
	closeSystemd, err := systemd.Attach(systemd.Config{}, r.pm)
	if err != nil {
		r.log.Warn("systemd gets no notifications, or not all", "err", err)
	}
	return func() {
		closeSocket()
		closeSystemd()
	}, nil
}

// listen binds the sockets.
func (r *runner) listen() error {
	first, exact := 3, map[int]bool{r.ready.fd: true}
	for _, a := range r.addrs {
		exact[a.fd] = true // 0 for any, or standard input
	}
	var ports, names []string
	for _, a := range r.addrs {
		file, name, err := r.bind(a)
		if err != nil {
			return err
		}
		number := a.fd
		if number == 0 { // the Manager gives these the lowest numbers that are free
			for exact[first] {
				first++
			}
			number = first
			first++
		}
		if a.pinned && a.fd == 0 { // it has the other number too, which the program does not learn
			if r.stdin, err = file(); err != nil {
				return err
			}
			number = 0
		}
		ports = append(ports, name+"="+strconv.Itoa(number))
		names = append(names, strings.NewReplacer(":", "-", "/", "-").Replace(strings.Trim(name, "/")))
	}
	if r.stdin != nil {
		r.ports = strings.Join(ports, ";")
	}
	r.names = strings.Join(names, ":")
	return nil
}

// bind binds a socket. It returns its name in SERVER_STARTER_PORT.
func (r *runner) bind(a address) (file func() (*os.File, error), name string, err error) {
	lc := prefork.ListenConfig{FD: a.fd}
	type filer interface{ File() (*os.File, error) }
	if strings.HasPrefix(a.network, "udp") {
		pc, err := lc.ListenPacket(r.pm, a.network, a.addr)
		if err != nil {
			return nil, "", err
		}
		r.logAddress(pc.LocalAddr())
		f, _ := pc.(filer)
		return fileOf(f), "u" + pc.LocalAddr().String(), nil
	}
	lc.Backlog = r.Backlog
	if a.open {
		lc.Mode = 0o777
	}
	ln, err := lc.Listen(r.pm, a.network, a.addr)
	if err != nil {
		return nil, "", err
	}
	r.logAddress(ln.Addr())
	f, _ := ln.(filer)
	return fileOf(f), ln.Addr().String(), nil
}

func (r *runner) logAddress(a net.Addr) {
	r.log.Info("listening", "network", a.Network(), "address", a.String())
}

func fileOf(f interface{ File() (*os.File, error) }) func() (*os.File, error) {
	return func() (*os.File, error) {
		if f == nil {
			return nil, net.ErrClosed
		}
		return f.File()
	}
}

func (r *runner) beforeSpawn(m *prefork.Manager, sp *prefork.Spawn) {
	sp.Command = expandAll(r.Args, sp.Slot, sp.Generation)
	set, unset, err := r.variables(sp.Slot, sp.Generation)
	if err != nil {
		r.log.Error("cannot read the directory of variables, the worker gets the last ones", "err", err)
	}
	if r.ports != "" && r.starter {
		set = append(set, starterPort+"="+r.ports)
	}
	if r.systemd {
		set = append(set, listenFDNames+"="+r.names)
	}
	if r.notify != nil {
		set = append(set, "NOTIFY_SOCKET="+r.notify.address())
	}
	sp.Env, sp.Unset, sp.Stdin = set, append(unset, daemonEnv), r.stdin
	r.recorder.open(sp)
}

func (r *runner) afterSpawn(m *prefork.Manager, pid int) {
	r.recorder.started(pid)
	if r.notify != nil {
		r.notify.spawned(pid)
	}
}

func (r *runner) onReap(m *prefork.Manager, e prefork.Exit) {
	r.recorder.ended(m, e)
	r.probes.stop(e.PID)
	r.report("status file", r.status.remove(e.PID))
}

func (r *runner) report(part string, err error) {
	if err != nil {
		r.log.Error("cannot write", "part", part, "err", err)
	}
}

func (r *runner) observe(e prefork.Event) {
	if r.journal != nil {
		r.journal(e)
	}
	switch e := e.(type) {
	case prefork.GenerationEvent:
		r.newest, r.replaced = e.Generation, 0
	case prefork.StateEvent:
		r.observeState(e.Worker)
	case prefork.SettledEvent:
		r.detach()
	case prefork.SpawnFailedEvent:
		r.recorder.cancel()
		if code := startStatus(e.Err); code != 0 && !r.worked {
			r.pm.ShutdownWith(&startError{code, e.Err})
		}
	}
}

// detach ends the wait of the caller of --daemonize.
func (r *runner) detach() {
	if r.daemon == nil {
		return
	}
	path := os.DevNull
	if r.IsFile() {
		path = r.Log
	}
	if err := r.daemon.detach(r.recorder.capture.Capture, path); err != nil {
		r.pm.ShutdownWith(fmt.Errorf("cannot become a daemon: %w", err))
	}
}

func (r *runner) observeState(w prefork.WorkerInfo) {
	switch w.State {
	case prefork.StateStarting:
		r.probes.start(w.PID, w.Slot, w.Generation)
	case prefork.StateReady:
		r.worked = true
		r.probes.stop(w.PID)
		r.report("status file", r.status.set(w.PID, w.Generation))
		if w.Generation == r.newest && r.newest > 1 && r.replaced < r.pm.MaxWorkers() {
			r.replaced++
			r.log.Info("reload", "generation", r.newest, "ready", fmt.Sprintf("%d of %d", r.replaced, r.pm.MaxWorkers()))
		}
	default:
		r.probes.stop(w.PID)
	}
}

// startStatus returns the exit status for a program that cannot be started; 0 for
// a failure that may pass.
func startStatus(err error) int {
	if errors.Is(err, exec.ErrNotFound) || errors.Is(err, fs.ErrNotExist) {
		return ExitNotFound
	}
	for _, final := range []error{fs.ErrPermission, exec.ErrDot, syscall.ENOEXEC, syscall.EISDIR, syscall.ENOTDIR, syscall.ELOOP, syscall.ENAMETOOLONG, syscall.E2BIG} {
		if errors.Is(err, final) {
			return ExitNoExec
		}
	}
	return 0
}
