// Package control serves the control socket of a prefork manager: HTTP/1.1 and
// JSON on a unix socket, for the command prefork, for curl and for programs. A
// client reads the status, follows the events and gives commands, which are
// answered with their outcome. PROTOCOL.md describes the protocol, and package
// client speaks it.
//
//	detach, err := control.Attach(control.Config{}, pm) // after New
//	if err != nil { log.Print(err) }
//	defer detach()
//
//	curl --unix-socket /run/prefork/web.prefork.sock http://x/v1/status
//
// Nothing here runs in the loop of a Manager, except that it stores each event. A
// hook that blocks, or a suspended loop, leaves status and events available.
//
// The package links neither net/http nor crypto, so it costs the start of a
// worker nothing.
package control

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/ops/client"
)

// Config holds the options of a control socket. The zero value is valid.
type Config struct {
	// Path is the path of the socket, an abstract name that begins with "@"
	// (Linux), or "off" for no socket. The variable PREFORK_CONTROL takes
	// precedence. By default it is the first of these that can be had:
	//
	//	$RUNTIME_DIRECTORY/NAME.prefork.sock
	//	/run/prefork/NAME.prefork.sock              as root
	//	$XDG_RUNTIME_DIR/prefork/NAME.prefork.sock
	//	@prefork/UID/NAME                           on Linux
	//
	// If another process listens there, the address ends in NAME-PID instead.
	Path string

	// Name is the NAME in the default address. "" means the name of the first
	// pool that has one, or else that of the program.
	Name string

	// Group is a group whose members may do everything, as root and the user of
	// the manager may: a name in /etc/group, or a number.
	Group string

	// Readers is a group whose members may ask, and give no commands.
	Readers string

	// Stop ends the program after a stop without the name of a pool. Nil shuts the
	// Managers down. A program whose Managers do not end it sets it, for one that
	// keeps services; then a stop of a single pool is refused.
	Stop func()

	// Tail returns the last lines of a worker, for clients that ask for them: such
	// as those of capture.Capture.TailOf. A negative slot stands for all of the pool. Nil
	// means that the program keeps none.
	Tail func(pool string, slot, lines int) []client.Line

	// Logger logs what the socket does. Nil means that of the first Manager, or for
	// Open that of package slog.
	Logger *slog.Logger

	// Stay sets the stopped flag of the program's service, for a stop that
	// should last: use service.Service.Stop. Nil refuses such a stop.
	Stay func() error

	// Services are shown and commanded below /v1/services. Nil means that the
	// program keeps none.
	Services Services
}

const (
	maxConns    = 64
	maxRefusals = 64 // connections that are only refused
	closeGrace  = time.Second
	forever     = 1<<63 - 1
)

// Attach serves the control socket of Managers until detach is called. It should
// be called after prefork.New and before Listen and Run, so that the socket is
// there before the first worker. The caller must call detach after Run or
// WaitAllChildren has returned: it answers clients that wait for the stop, and
// removes the socket.
//
// The successor of an upgrade inherits the socket and accepts once it has taken
// over. Until then connections wait.
//
// Attach fails if no place for the socket can be had, or on a system without
// support (errors.ErrUnsupported). In a worker Attach and detach are no-ops.
func Attach(cfg Config, pms ...*prefork.Manager) (detach func() error, err error) {
	if prefork.IsWorker() || len(pms) == 0 {
		return func() error { return nil }, nil
	}
	managers := make([]manager, len(pms))
	for i, pm := range pms {
		managers[i] = pm
	}
	s := newServer(cfg, managers)
	if err := s.attach(); err != nil {
		return func() error { return nil }, fmt.Errorf("control: %w", err)
	}
	return sync.OnceValue(s.detach), nil
}

// A Server serves the control socket of Managers that come and go.
type Server struct {
	s     *server
	close func() error
}

// Open is Attach for a program whose Managers come and go. Server.Add adds one, and
// the function that it returns removes it. The caller must call Close.
func Open(cfg Config) (*Server, error) {
	if prefork.IsWorker() {
		return &Server{close: func() error { return nil }}, nil
	}
	s := newServer(cfg, nil)
	if err := s.attach(); err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	return &Server{s, sync.OnceValue(s.detach)}, nil
}

// Add adds a Manager, until remove is called, which must be before Manager.Close.
// Clients find the Managers in the order of their names, and the events report
// that one has come or gone. Add and remove are safe for concurrent use, also in a
// hook of a Manager. In a worker they are no-ops.
func (s *Server) Add(pm *prefork.Manager) (remove func()) {
	if s.s == nil || s.s.sock == nil {
		return func() {}
	}
	return s.s.add(pm)
}

// Close ends everything, as detach of Attach does.
func (s *Server) Close() error { return s.close() }

// attach opens or inherits the socket and starts to accept.
func (s *server) attach() (err error) {
	if s.perm, err = newPermissions(s.cfg); err != nil {
		return err
	}
	all := places(s.cfg, s.name)
	if len(all) == 0 {
		return nil
	}
	s.key = "control socket " + all[0].address
	if f := prefork.PassedFile(s.key); f != nil {
		if s.sock, err = adopt(f); err == nil {
			s.inherited = true
		} else {
			f.Close() // a new one is opened
		}
	}
	if !s.inherited {
		if s.sock, err = open(s.cfg, s.name, s.perm); err != nil {
			return fmt.Errorf("no socket: %w", err)
		}
	}
	s.perm.byMode = s.perm.mode() == ownerOnly && !strings.HasPrefix(s.sock.address, "@")
	prefork.PassFile(s.key, s.sock.file)
	for _, p := range s.all() {
		_, p.unfollow = p.pm.Follow(s.follower(p))
	}
	s.log.Info("control socket is open", "socket", s.sock.address)
	s.loops.Go(s.run)
	return nil
}

// tookOver reports whether this process is not a successor that still waits.
func tookOver() bool { return isClosed(prefork.TookOver()) }

// detach ends everything: it lets the clients that wait have their answers first.
func (s *server) detach() error {
	if s.sock == nil {
		return nil
	}
	close(s.closing)
	s.loops.Wait()
	done := make(chan struct{})
	go func() {
		s.handlers.Wait()
		close(done)
	}()
	s.closeConns(false)
	select {
	case <-done:
	case <-time.After(closeGrace):
		s.closeConns(true)
		<-done
	}
	for _, p := range s.all() {
		p.unfollow()
	}
	if !s.inherited || tookOver() {
		s.sock.remove()
	}
	if !prefork.HandedOver() {
		prefork.PassFile(s.key, nil)
	}
	s.sock.close()
	return nil
}

// beatPeriod is the time between two beats of a stream. Tests have a shorter one.
var beatPeriod = 15 * time.Second

// A server serves a control socket.
type server struct {
	cfg  Config
	name string
	perm permissions
	sock *socket
	key  string // under which the socket is passed to a successor

	// The predecessor of an upgrade has passed the socket on, and has it until this
	// manager has taken over.
	inherited bool

	log   *slog.Logger
	about about
	cache statusCache
	ring  ring

	loops    sync.WaitGroup // run
	handlers sync.WaitGroup // of connections
	served   chan struct{}  // has an element for each connection that is served
	refused  chan struct{}  // the same for those that are refused

	scaling sync.Mutex // held by relative changes of the number of workers

	mu    sync.Mutex
	conns map[net.Conn]connState

	// Each pool that comes or goes replaces the list and gets the next number.
	pools   []*pool
	changes int

	closing    chan struct{} // closed by close
	successor  atomic.Int64  // its pid, after it has taken over
	superseded chan struct{} // closed then
	supersede  sync.Once

	beat time.Duration
}

// A manager has the methods of a *prefork.Manager that a server calls. Tests have
// another.
type manager interface {
	Config() prefork.Config
	Follow(f func(prefork.Record)) (now prefork.Snapshot, stop func())
	Snapshot() prefork.Snapshot
	Queues() []prefork.QueueInfo
	Ping(ctx context.Context) error
	Note(by, text string)
	Reload(ctx context.Context, f prefork.Forward) (generation int, err error)
	RequestUpgrade(ctx context.Context) (pid int, err error)
	ReplaceWorker(ctx context.Context, ordinal int) error
	SignalWorker(ordinal int, sig os.Signal) error
	StopWorker(ordinal int) error
	SignalAllChildren(sig os.Signal)
	Deliver(sig os.Signal)
	Shutdown()
	Pause()
	Resume()
	MaxWorkers() int
	SetMaxWorkers(n int)
	SetLogLevel(level slog.Level)
}

// A pool is a Manager of the server.
type pool struct {
	pm       manager
	cfg      prefork.Config
	name     string
	unfollow func()
	ended    atomic.Bool // the last worker was reaped after a shutdown
	gone     atomic.Bool // it was removed
	shared   sharedState
	pinged   sharedPing
}

// about describes the program.
type about struct {
	program, version, revision, library string
}

func newServer(cfg Config, pms []manager) *server {
	s := &server{
		cfg: cfg, name: cfg.Name, about: readAbout(), conns: make(map[net.Conn]connState), beat: beatPeriod,
		served: make(chan struct{}, maxConns), refused: make(chan struct{}, maxRefusals),
		closing: make(chan struct{}), superseded: make(chan struct{}),
	}
	s.log = cfg.Logger
	for _, pm := range pms {
		c := pm.Config()
		s.pools = append(s.pools, &pool{pm: pm, cfg: c, name: c.Name})
		if s.name == "" {
			s.name = c.Name
		}
		if s.log == nil {
			s.log = c.Logger
		}
	}
	if s.log == nil {
		s.log = slog.Default()
	}
	if s.name == "" {
		s.name = s.about.program
	}
	s.name = fileName(s.name)
	return s
}

func readAbout() (a about) {
	if len(os.Args) > 0 {
		a.program = filepath.Base(os.Args[0])
	}
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return a
	}
	a.version = info.Main.Version
	for _, setting := range info.Settings {
		if setting.Key == "vcs.revision" {
			a.revision = setting.Value
		}
	}
	const library = "github.com/prefork-go/prefork"
	if strings.HasPrefix(info.Main.Path, library) {
		a.library = info.Main.Version
	}
	for _, m := range info.Deps {
		if m.Path == library {
			a.library = m.Version
		}
	}
	return a
}

// follower returns the function that stores the events of a pool. It runs in the
// loop of the Manager.
func (s *server) follower(p *pool) func(prefork.Record) {
	return func(r prefork.Record) {
		switch e := r.Event.(type) {
		case prefork.StartedEvent:
			p.ended.Store(false)
		case prefork.EndedEvent:
			p.ended.Store(true)
		case prefork.UpgradedEvent:
			s.successor.Store(int64(e.PID))
			s.supersede.Do(func() { close(s.superseded) })
		}
		s.ring.add(&entry{Record: r, pool: p})
	}
}

// run accepts connections. A successor waits until it has taken over.
func (s *server) run() {
	if s.inherited {
		select {
		case <-prefork.TookOver():
			if err := s.sock.claim(s.perm); err != nil {
				s.log.Warn("control socket keeps the permissions of the predecessor's", "err", err)
			}
		case <-s.closing:
			return
		}
	}
	s.loops.Go(func() {
		select {
		case <-s.superseded:
			// Clients of a successor that has ended must not wait for this process.
			s.sock.file.Close()
		case <-s.closing:
		}
		s.sock.ln.Close() // ends the loop below
	})
	for {
		conn, err := s.sock.ln.AcceptUnix()
		switch {
		case errors.Is(err, net.ErrClosed):
			return
		case err != nil: // no descriptors, most likely
			select {
			case <-time.After(50 * time.Millisecond):
			case <-s.closing:
				return
			}
		default:
			s.accept(conn)
		}
	}
}
