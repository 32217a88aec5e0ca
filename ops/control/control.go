// Package control serves the control socket of a prefork manager: HTTP/1.1 and
// JSON on a unix socket, for the command prefork, for curl and for programs. A
// client reads the status, follows the events and gives commands, which are
// answered with their outcome. PROTOCOL.md describes the protocol, and package
// client speaks it.
//
//	detach, err := control.Attach(control.Config{}, pm) // behind New
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
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
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

	// Stay sets the stopped flag of the program's service, for a stop that
	// should last: use service.Service.Stop. Nil refuses such a stop.
	Stay func() error
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
	for _, p := range s.pools {
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
	for _, p := range s.pools {
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

// closeConns closes connections: all, or those that are owed no answer. It ends the
// wait for requests, which serve then refuses.
func (s *server) closeConns(all bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, state := range s.conns {
		switch {
		case all || state == answered:
			conn.Close()
		case state == unread:
			conn.SetReadDeadline(time.Unix(1, 0))
		}
	}
}

// connState is the state of a connection.
type connState uint8

const (
	unread   connState = iota // its request has not arrived
	owed                      // it is owed an answer
	answered                  // it is owed none
)

func (s *server) note(conn net.Conn, state connState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.conns[conn] = state
}

// ends returns the problem of a request that arrives while the server ends; nil if
// it does not end.
func (s *server) ends() error {
	if !s.isClosing() {
		return nil
	}
	if p := s.handedOver(); p != nil {
		return p
	}
	return problemf(503, "the manager ends")
}

// beatPeriod is the time between two beats of a stream. Tests have a shorter one.
var beatPeriod = 15 * time.Second

// A server serves a control socket.
type server struct {
	cfg   Config
	name  string
	pools []*pool
	perm  permissions
	sock  *socket
	key   string // under which the socket is passed to a successor

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
	for _, pm := range pms {
		c := pm.Config()
		s.pools = append(s.pools, &pool{pm: pm, cfg: c, name: c.Name})
		if s.name == "" {
			s.name = c.Name
		}
	}
	if s.name == "" {
		s.name = s.about.program
	}
	s.name = fileName(s.name)
	s.log = s.pools[0].cfg.Logger
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

// accept starts to serve a connection, or to refuse it.
func (s *server) accept(conn *net.UnixConn) {
	who := peerOf(conn)
	may := s.perm.of(who)
	serve := func() { s.serve(conn, who, may) }
	var refusal *problem
	if may == accessNone {
		refusal = s.perm.refusal(who, may)
	}
	lane := s.served
	if refusal == nil {
		select {
		case lane <- struct{}{}:
		default:
			refusal = problemf(503, "there are %d connections already: try again", maxConns)
		}
	}
	if refusal != nil {
		lane = s.refused
		select {
		case lane <- struct{}{}:
			serve = func() { s.refuse(conn, refusal) }
		default:
			conn.SetWriteDeadline(time.Now().Add(drainTime)) // its buffer is empty
			answerProblem(conn, refusal)
			conn.Close()
			return
		}
	}
	s.note(conn, unread)
	s.handlers.Go(func() {
		defer func() {
			conn.Close()
			s.mu.Lock()
			delete(s.conns, conn)
			s.mu.Unlock()
			<-lane
		}()
		serve()
	})
}

func peerOf(conn *net.UnixConn) (p peer) {
	p = peer{uid: ^uint32(0), known: true}
	if raw, err := conn.SyscallConn(); err == nil {
		raw.Control(func(fd uintptr) { p = peerCreds(int(fd)) })
	}
	return p
}

// refuse answers a connection without reading its request.
func (s *server) refuse(conn net.Conn, why *problem) {
	answerProblem(timedWriter{conn}, why)
	s.drain(conn)
}

// drain reads the rest of a request. If it were left unread, some clients would get
// an error instead of the answer.
func (s *server) drain(conn net.Conn) {
	s.note(conn, answered)
	if c, ok := conn.(*net.UnixConn); ok {
		c.CloseWrite()
	}
	conn.SetReadDeadline(time.Now().Add(drainTime))
	io.CopyN(io.Discard, conn, drainLimit)
}

// timedWriter gives each write its time.
type timedWriter struct{ net.Conn }

func (w timedWriter) Write(data []byte) (int, error) {
	w.SetWriteDeadline(time.Now().Add(ioTimeout))
	return w.Conn.Write(data)
}

// serve reads the request of a connection and answers it.
func (s *server) serve(conn *net.UnixConn, who peer, may access) {
	defer func() {
		if v := recover(); v != nil { // a defect here must not end the manager
			s.log.Error("control: panic", "panic", v, "stack", string(debug.Stack()))
		}
	}()
	w := timedWriter{conn}
	conn.SetReadDeadline(time.Now().Add(ioTimeout))
	if s.ends() != nil { // since closeConns, most likely
		conn.SetReadDeadline(time.Now().Add(drainTime))
	}
	req, err := readRequest(conn, func() error {
		_, err := io.WriteString(w, "HTTP/1.1 100 Continue\r\n\r\n")
		return err
	})
	var p *problem
	s.note(conn, owed)
	if ends := s.ends(); err != nil && ends != nil {
		err = ends
	}
	if err == nil {
		err = s.dispatch(&exchange{server: s, request: req, conn: conn, w: w, peer: who, access: may})
	}
	if errors.As(err, &p) {
		answerProblem(w, p)
		s.drain(conn)
	}
}

// exchange is a request that is being answered.
type exchange struct {
	*server
	*request
	conn   *net.UnixConn
	w      timedWriter
	peer   peer
	access access
}

// A route handles the requests for a path. Its function returns a *problem that the
// client gets, or any other error if the client is gone.
type route struct {
	method string
	help   string
	handle func(*exchange) error
}

var routes map[string]route

func init() {
	routes = map[string]route{
		"/":            {"GET", "", (*exchange).help},
		"/v1/status":   {"GET", "[?usage=1][&pool=NAME] the status; with Accept: text/plain as a table", (*exchange).status},
		"/v1/events":   {"GET", "[?since=SEQ][&follow=0] the state, or the last events, and those that follow", (*exchange).events},
		"/v1/wait":     {"GET", "?for=ready|settled|paused|running|reloaded>N[&timeout=30s] waits until it holds", (*exchange).wait},
		"/healthz":     {"GET", "200 when every loop has turned within 2 s", (*exchange).healthz},
		"/readyz":      {"GET", "200 when each pool has a ready worker", (*exchange).readyz},
		"/v1/reload":   {"POST", "[?how=rolling|plain|interval=1s] replaces the workers", (*exchange).reload},
		"/v1/restart":  {"POST", "replaces the workers, all at once", (*exchange).restart},
		"/v1/upgrade":  {"POST", "replaces the manager by one of the program on disk", (*exchange).upgrade},
		"/v1/scale":    {"POST", "?workers=N|+N|-N changes the number of workers", (*exchange).scale},
		"/v1/pause":    {"POST", "asks the workers to pause", (*exchange).pause},
		"/v1/resume":   {"POST", "ends the pause", (*exchange).resume},
		"/v1/signal":   {"POST", "?signal=HUP[&to=manager|workers] delivers a signal", (*exchange).signal},
		"/v1/stop":     {"POST", "[?stay=1] ends the program; stay sets the stopped flag of its service", (*exchange).stop},
		"/v1/workers":  {"POST", "/ID/replace|stop|kill|signal?signal= acts on one worker", (*exchange).worker},
		"/v1/loglevel": {"PUT", "?level=debug sets the level of the log", (*exchange).loglevel},
	}
}

func (s *server) dispatch(x *exchange) error {
	path := x.path
	if strings.HasPrefix(path, "/v1/workers/") {
		path = "/v1/workers"
	}
	r, ok := routes[path]
	if !ok {
		return problemf(404, "there is no %.100q here: GET / lists the paths", x.path)
	}
	if x.method != r.method {
		p := problemf(405, "%s is for %s", path, r.method)
		p.allow = r.method
		return p
	}
	if r.method != "GET" && x.access != accessAll {
		return s.perm.refusal(x.peer, x.access)
	}
	if p := s.handedOver(); p != nil {
		return p
	}
	return r.handle(x)
}

// handedOver returns the problem of a request that this manager has accepted and
// its successor must answer.
func (s *server) handedOver() *problem {
	if pid := s.successor.Load(); pid != 0 || prefork.HandedOver() {
		p := problemf(503, client.Superseded)
		p.successor = int(pid)
		return p
	}
	return nil
}

func (x *exchange) help() error {
	var paths []string
	for path := range routes {
		paths = append(paths, path)
	}
	slices.Sort(paths)
	b := fmt.Appendf(nil, "control socket of %s, pid %d\n\n", x.name, os.Getpid())
	for _, path := range paths {
		r := routes[path]
		if r.help == "" {
			continue
		}
		b = fmt.Appendf(b, "%-4s %s %s\n", r.method, path, r.help)
	}
	b = append(b, "\nEvery POST takes timeout=60s, after which the thing goes on, and wait=0.\n"...)
	return answer(x.w, 200, typeText, b)
}

// chosen returns the pools that a request is for.
func (x *exchange) chosen() ([]*pool, error) {
	if !x.query.Has("pool") {
		return x.pools, nil
	}
	name := x.query.Get("pool")
	for _, p := range x.pools {
		if p.name == name {
			return []*pool{p}, nil
		}
	}
	return nil, problemf(404, "there is no pool %.100q; there are %s", name, x.poolNames())
}

// one returns the pool of a request that is for one.
func (x *exchange) one() (*pool, error) {
	pools, err := x.chosen()
	if err != nil {
		return nil, err
	}
	if len(pools) > 1 {
		return nil, problemf(400, "there are several pools, name one with pool=: %s", x.poolNames())
	}
	return pools[0], nil
}

func (s *server) poolNames() string {
	var names []string
	for _, p := range s.pools {
		names = append(names, fmt.Sprintf("%q", p.name))
	}
	return strings.Join(names, ", ")
}

// untilGone returns a context that ends when the client has closed the
// connection, or after d if that is not zero.
func (x *exchange) untilGone(d time.Duration) (context.Context, context.CancelFunc) {
	if d == 0 {
		d = forever
	}
	ctx, cancel := context.WithTimeout(context.Background(), d)
	x.conn.SetReadDeadline(time.Time{})
	go func() { // until the connection is closed
		var buf [512]byte
		for {
			n, err := x.conn.Read(buf[:])
			if n > 0 {
				continue
			}
			if err == io.EOF && !peerHungUp(x.conn) {
				return // it has ended its sending alone
			}
			cancel()
			return
		}
	}()
	return ctx, cancel
}

func peerHungUp(conn *net.UnixConn) (gone bool) {
	raw, err := conn.SyscallConn()
	if err != nil || raw.Control(func(fd uintptr) { gone = hungUp(int(fd)) }) != nil {
		return true
	}
	return gone
}
