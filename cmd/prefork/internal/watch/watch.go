package watch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/cmd/prefork/internal/output"
	"github.com/prefork-go/prefork/internal/sig"
	"github.com/prefork-go/prefork/ops/capture"
	"github.com/prefork-go/prefork/ops/control"
	"github.com/prefork-go/prefork/ops/journal"
	"github.com/prefork-go/prefork/ops/monitor"
	"github.com/prefork-go/prefork/ops/systemd"
)

// A BusyError reports that another process watches the directory, or writes to
// the journal.
type BusyError struct {
	Path string
	PID  int // 0 if it is unknown
}

func (e *BusyError) Error() string {
	if e.PID == 0 {
		return "already running"
	}
	return fmt.Sprintf("already running, as process %d", e.PID)
}

var errKilled = errors.New("all services were killed after SIGQUIT")

// Status returns the exit status for an error of Run.
func (o Options) Status(err error) int {
	var (
		usage *UsageError
		busy  *BusyError
	)
	switch {
	case err == nil:
		return 0
	case errors.As(err, &busy):
		return o.BusyExit
	case errors.As(err, &usage):
		return 2
	}
	return 1
}

// A watcher wires the Monitor to the parts around it.
type watcher struct {
	*plan
	log     *slog.Logger
	out     *output.Log      // nil for the streams of this process
	journal *journal.Journal // nil for none
	socket  *control.Server  // nil for none
	notes   sync.WaitGroup   // last lines that are still to be noted

	mu    sync.Mutex
	pools map[string]*prefork.Manager
}

// Run keeps the services of a directory running until a signal ends it. Messages go
// to errs.
func Run(ctx context.Context, o Options, errs io.Writer) error {
	p, err := o.plan()
	if err != nil {
		return err
	}
	w := &watcher{plan: p, log: slog.New(slog.NewTextHandler(errs, nil)), pools: make(map[string]*prefork.Manager)}
	if prefork.ReaperPID() == 0 { // otherwise the process above has the locks
		if err := p.lock(w.logWaiting); err != nil {
			return err
		}
	}
	if err := w.needReaper(); err != nil {
		return err
	}
	closeAll, err := w.open()
	defer closeAll()
	if err != nil {
		return err
	}
	c := w.config
	c.Logger, c.Attach, c.Observe, c.Enter = slog.New(brief{w.log.Handler()}), w.attach, w.observe, p.enter()
	if w.out != nil {
		c.Output = w.output
	}
	m, err := monitor.New(c)
	if err != nil {
		return err
	}
	if err := w.openSocket(m); err != nil {
		return err
	}
	if w.socket != nil {
		defer w.socket.Close()
	}
	return w.run(ctx, m)
}

// openSocket opens the control socket. One that the user has not asked for is no
// reason to fail.
func (w *watcher) openSocket(m *monitor.Monitor) (err error) {
	cfg := control.Config{Path: w.Control, Name: w.Name, Services: m.Control(), Stop: m.Shutdown, Logger: w.log}
	if w.out != nil {
		cfg.Tail = output.Tail(w.out.Capture)
	}
	w.socket, err = control.Open(cfg)
	switch {
	case err == nil:
		return nil
	case w.Control != "":
		return fmt.Errorf("--control: %w", err)
	}
	w.log.Warn("no control socket", "err", err)
	return nil
}

// needReaper returns below a reaper that kills all processes of the services if
// this one is killed. It holds the locks meanwhile.
func (w *watcher) needReaper() error {
	if runtime.GOOS != "linux" {
		return nil
	}
	pm, err := prefork.New(prefork.Config{Name: "watch", ReaperKills: true, Untrapped: true, Logger: w.log})
	if err != nil {
		return err
	}
	return pm.Close()
}

// open opens the log and the journal. The function that it returns closes them,
// also after an error.
func (w *watcher) open() (closeAll func(), err error) {
	var closers []func() error
	closeAll = func() {
		for i := len(closers) - 1; i >= 0; i-- {
			if err := closers[i](); err != nil {
				w.log.Error("cannot close", "err", err)
			}
		}
	}
	if w.Journal != "" {
		if w.journal, err = w.openJournal(); errors.As(err, new(*BusyError)) {
			return closeAll, err
		}
		if err != nil {
			return closeAll, fmt.Errorf("--journal: %w", err)
		}
		closers = append(closers, w.journal.Close)
	}
	if w.out, err = w.Open(w.Name, w.log); err != nil {
		return closeAll, err
	}
	if w.out != nil {
		closers = append(closers, func() error {
			w.notes.Wait()
			return w.out.Close(context.Background())
		})
	}
	return closeAll, nil
}

// openJournal opens the journal. A process that has rotated it holds a lock on the
// file beside it only: the lock that this process has is on another file.
func (w *watcher) openJournal() (*journal.Journal, error) {
	patience := 2 * time.Second // the manager before may have been killed a moment ago
	if w.Wait {
		patience = 100 * time.Millisecond
	}
	for {
		j, err := journal.Open(w.Journal, journal.Config{LockTimeout: patience})
		var locked *journal.LockedError
		if !errors.As(err, &locked) {
			return j, err
		}
		busy := &BusyError{w.Journal, locked.PID}
		if !w.Wait {
			return nil, busy
		}
		w.logWaiting(busy)
		if err := awaitJournal(w.Journal); err != nil {
			return nil, err
		}
	}
}

func (w *watcher) logWaiting(busy *BusyError) {
	w.log.Info("waiting", "for", busy.Path, "because", busy.Error())
}

// run runs the Monitor, and acts on signals.
func (w *watcher) run(ctx context.Context, m *monitor.Monitor) error {
	signals := make(chan os.Signal, 16)
	signal.Notify(signals, trapped...)
	defer signal.Stop(signals)
	notify, err := systemd.NewNotifier(w.log)
	if err != nil {
		w.log.Warn("systemd gets no notifications, or not all", "err", err)
	}
	report := newReporter(notify, m)
	defer report.close()
	done := make(chan error, 1)
	go func() { done <- m.Run(ctx) }()
	saveMemory()
	stopping, killed := false, false
	for {
		select {
		case <-report.changed:
			report.wait()
		case <-report.pause:
			report.look()
		case <-report.scanned:
			report.reloaded()
		case <-report.alive:
			report.isAlive()
		case err := <-done:
			if err == nil && killed {
				err = errKilled
			}
			return err
		case s := <-signals:
			w.log.Info("signal", "received", sig.Name(s))
			switch s {
			case syscall.SIGTERM:
				stopping = true
				report.stop()
				m.Shutdown()
			case os.Interrupt:
				if stopping {
					m.Kill()
				}
				stopping = true
				report.stop()
				m.Shutdown()
			case syscall.SIGQUIT:
				stopping, killed = true, true
				report.stop()
				m.Kill()
			case upgradeSignal:
				w.log.Warn("signal without effect: prefork watch cannot be upgraded, stop it and start it again", "received", sig.Name(s))
			case reopenSignal:
				if err := w.out.Reopen(); err != nil {
					w.log.Error("cannot open the log again", "err", err)
				}
			default:
				report.rescan()
			}
		}
	}
}

// saveMemory keeps the memory of a process small that has a lot to do at its start,
// and then hardly anything: the garbage of the start would stay for good.
func saveMemory() {
	debug.SetGCPercent(50)
	time.AfterFunc(10*time.Second, debug.FreeOSMemory)
}

// output gives a process the pipes of the log.
func (w *watcher) output(service string, sp *prefork.Spawn) (started func(pid int), ended func(prefork.Exit)) {
	c, err := w.out.OpenAs(service, sp.Slot)
	if err != nil {
		w.log.Warn("no pipes for the log of a service, which writes to stderr", "service", service, "err", err)
		return nil, nil
	}
	sp.Stdout, sp.Stderr = c.Stdout, c.Stderr
	started = func(pid int) {
		if pid == 0 {
			c.Cancel()
		} else {
			c.Started(pid)
		}
	}
	return started, func(e prefork.Exit) { w.ended(service, c, e) }
}

// ended notes the end of a process. After a bad one its last lines are among the
// events, unless they are beside them anyway.
func (w *watcher) ended(service string, c *capture.Worker, e prefork.Exit) {
	w.mu.Lock()
	pm := w.pools[service]
	w.mu.Unlock()
	if pm == nil || w.Log == output.Stderr || e.Reason == prefork.ReasonFinished || e.Reason == prefork.ReasonStopped {
		c.Ended(nil)
		return
	}
	w.notes.Add(1)
	c.Ended(func(last []capture.Line) {
		defer w.notes.Done()
		texts := make([]string, len(last))
		for i, line := range last {
			texts[i] = line.Text
		}
		if len(texts) > 0 {
			pm.Note("log", fmt.Sprintf("last lines of process %d: %s", e.PID, strings.Join(texts, " | ")))
		}
	})
}

// attach adds the Manager of a service to the control socket and the journal.
func (w *watcher) attach(service string, pm *prefork.Manager) (detach func()) {
	w.mu.Lock()
	w.pools[service] = pm
	w.mu.Unlock()
	remove, stop := func() {}, func() {}
	if w.socket != nil {
		remove = w.socket.Add(pm)
	}
	if w.journal != nil {
		write := journal.PoolObserver(w.journal, service, w.log)
		_, stop = pm.Follow(func(r prefork.Record) { write(r.Event) })
	}
	return func() {
		stop()
		remove()
		w.mu.Lock()
		defer w.mu.Unlock()
		if w.pools[service] == pm {
			delete(w.pools, service)
		}
	}
}

// observe writes the events of the Monitor to the log and the journal.
func (w *watcher) observe(e monitor.Event) {
	r := journal.Record{Time: e.Time}
	level := slog.LevelInfo
	switch e.Kind {
	case monitor.Added:
		r.Event = journal.ProgramAdded{Service: e.Service, Kind: e.Type.String()}
	case monitor.Changed:
		r.Event = journal.ProgramChanged{Service: e.Service}
	case monitor.Removed:
		r.Event = journal.ProgramRemoved{Service: e.Service, Reason: e.Reason}
	case monitor.PassedOver:
		r.Event, level = journal.PassedOver{Name: e.Service, Reason: e.Reason}, slog.LevelWarn
	case monitor.GaveUp:
		r.Event, level = journal.GaveUp{Service: e.Service, Reason: e.Reason}, slog.LevelWarn
	default:
		return
	}
	if text := logText(e); text != "" {
		attrs := []slog.Attr{slog.String("service", e.Service)}
		if e.Reason != "" {
			attrs = append(attrs, slog.String("reason", e.Reason))
		}
		w.log.LogAttrs(context.Background(), level, text, attrs...)
	}
	if e.Kind == monitor.Removed && w.out != nil {
		w.out.Forget(e.Service)
	}
	if w.journal == nil {
		return
	}
	if err := w.journal.Write(r); err != nil {
		w.log.Error("cannot write the journal", "err", err)
	}
}

// logText returns the message for an event in the log; "" if the Monitor has written
// one, with more in it.
func logText(e monitor.Event) string {
	switch {
	case e.Kind == monitor.Added:
		return e.Type.String() + " added"
	case e.Kind == monitor.Changed:
		return e.Type.String() + " changed"
	case e.Kind == monitor.Removed:
		return e.Type.String() + " removed"
	case e.Kind == monitor.PassedOver && e.Type == 0:
		return "passed over"
	}
	return ""
}
