package prefork_test

import (
	"bufio"
	"context"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforktest"
)

// A chaos run: a manager with its workers and the reaper above it, to whom things happen by chance, with load from outside.
// After every step all must be as it should be.

var (
	chaosSeed  = flag.Uint64("chaos.seed", 0, "the seed of a chaos run; 0 chooses one")
	chaosSteps = flag.Int("chaos.steps", 0, "how many steps a chaos run has; 0 means 100, and with -long so many that each kind comes 1,000 times, and kills 10,000")
)

func init() {
	programs["chaos"], programs["stranger"] = chaos, stranger
}

// flagFile is a file in the directory of a chaos run that asks the program for something while it is there.
func flagFile(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, name))
	return err == nil
}

// chaos serves connections, and tells of what happens. Its arguments are a directory and an address.
func chaos() {
	dir := os.Args[1]
	var pm *prefork.Manager
	broken, err := os.Open(os.DevNull)
	if err != nil {
		panic(err)
	}
	broken.Close()
	pm = must(prefork.Config{
		MaxWorkers: 4, MaxSurge: 2, Standby: 1, ErrRespawnInterval: -1, Reaper: true,
		StopTimeout: 5 * time.Second, UpgradeTimeout: 20 * time.Second,
		Readiness: prefork.Readiness{Explicit: true, Timeout: 10 * time.Second},
		TrapSignals: prefork.Signals{
			term: {Signal: term}, hup: {Rolling: true}, usr1: {Signal: term}, syscall.SIGUSR2: {Upgrade: true},
			syscall.SIGALRM: {Signal: usr1}, syscall.SIGTTIN: {}, syscall.SIGTTOU: {}, syscall.SIGWINCH: {},
		},
		Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		BeforeSpawn: func(_ *prefork.Manager, s *prefork.Spawn) {
			if flagFile(dir, "cannot spawn") {
				s.Files = []*os.File{broken}
			}
		},
		Observe: func(ev prefork.Event) {
			switch ev := ev.(type) {
			case prefork.ExitEvent:
				say("exit %d at %d: %v", ev.Exit.PID, time.Now().UnixNano(), ev.Exit.Reason)
			case prefork.SpawnFailedEvent:
				say("spawn failed: %v", ev.Err)
			case prefork.RolledEvent:
				say("rolled")
			case prefork.RollFailedEvent:
				say("roll failed: %v", ev.Err)
			case prefork.UpgradedEvent:
				say("upgraded")
			case prefork.UpgradeFailedEvent:
				say("upgrade failed: %v", ev.Err)
			case prefork.SignalEvent:
				switch ev.Received {
				case syscall.SIGTTIN:
					pm.SetMaxWorkers(min(8, pm.MaxWorkers()+1))
				case syscall.SIGTTOU:
					pm.SetMaxWorkers(max(1, pm.MaxWorkers()-1))
				case syscall.SIGWINCH:
					saySnapshot(pm.Snapshot())
				}
			}
		},
	})
	ln, err := pm.Listen("tcp", os.Args[2])
	if err != nil {
		say("%v", err)
		os.Exit(1)
	}
	if prefork.IsWorker() {
		signal.Notify(make(chan os.Signal, 1), usr1)
	} else {
		say("manager %d", os.Getpid())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error { return serveChaos(w, ln, dir) }); err != nil {
		say("Run: %v", err)
		os.Exit(1)
	}
}

func saySnapshot(s prefork.Snapshot) {
	var b strings.Builder
	for _, w := range s.Workers {
		fmt.Fprintf(&b, " %d=%v", w.PID, w.State)
	}
	say("snapshot of %d, max %d:%s", s.PID, s.MaxWorkers, b.String())
}

// serveChaos answers each connection in two lines, and drains when it should end.
func serveChaos(w *prefork.Worker, ln net.Listener, dir string) error {
	ctx := w.Context()
	switch {
	case flagFile(dir, "broken"):
		return errors.New("broken")
	case flagFile(dir, "slow"):
		time.Sleep(time.Duration(rand.IntN(100)) * time.Millisecond)
	case flagFile(dir, "leaves orphans"):
		exec.Command("sh", "-c", "sleep 0.01 & sleep 0.02 &").Run()
	}
	w.Ready()
	go func() {
		<-ctx.Done()
		ln.Close()
	}()
	var open sync.WaitGroup
	defer open.Wait()
	for {
		conn, err := ln.Accept()
		if err != nil {
			return nil
		}
		open.Go(func() {
			defer conn.Close()
			fmt.Fprintln(conn, os.Getpid())
			time.Sleep(time.Duration(rand.IntN(10)) * time.Millisecond)
			fmt.Fprintln(conn, "done")
		})
	}
}

// stranger tells of every signal that it gets.
func stranger() {
	c := make(chan os.Signal, 100)
	signal.Notify(c)
	say("stranger %d", os.Getpid())
	for sig := range c {
		if sig != syscall.SIGURG {
			say("stranger got %v", sig)
		}
		if sig == term {
			return
		}
	}
}

// The kinds of steps.
const (
	chaosKill        = "kill a worker"
	chaosCrash       = "crash a worker"
	chaosStop        = "stop and continue a worker"
	chaosEnd         = "have a worker end"
	chaosSignal      = "forward a signal"
	chaosGrow        = "one worker more"
	chaosShrink      = "one worker less"
	chaosRoll        = "rolling reload"
	chaosReload      = "reload"
	chaosBreak       = "rolling reload that fails"
	chaosUpgrade     = "upgrade"
	chaosBadUpgrade  = "upgrade that fails"
	chaosSlow        = "slow to become ready"
	chaosCannotSpawn = "spawns that fail"
	chaosFullPipe    = "a log that nobody reads"
	chaosFreeze      = "stop and continue the manager"
	chaosOrphans     = "orphans"
	chaosMurder      = "kill the manager"
)

var chaosKinds = []string{chaosKill, chaosCrash, chaosStop, chaosEnd, chaosSignal, chaosGrow, chaosShrink, chaosRoll, chaosReload, chaosBreak, chaosUpgrade,
	chaosBadUpgrade, chaosSlow, chaosCannotSpawn, chaosFullPipe, chaosFreeze, chaosOrphans, chaosMurder}

// A chaosStep is what happens, to which worker, and whether another one is killed meanwhile.
type chaosStep struct {
	kind   string
	target int
	also   bool
}

// planChaos makes the steps of a run. What happens does not depend on how it comes out.
func planChaos(seed uint64, steps int) []chaosStep {
	r := rand.New(rand.NewPCG(seed, 1))
	var all []chaosStep
	add := func(kind string) {
		all = append(all, chaosStep{kind, r.IntN(1000), r.IntN(4) == 0})
	}
	if steps > 0 {
		for len(all) < steps {
			if kind := chaosKinds[r.IntN(len(chaosKinds))]; r.IntN(2) == 0 {
				add(chaosKill)
			} else {
				add(kind)
			}
		}
		return all
	}
	for _, kind := range chaosKinds {
		n := 1000
		if kind == chaosKill {
			n *= 10
		}
		for range n {
			add(kind)
		}
	}
	r.Shuffle(len(all), func(i, j int) { all[i], all[j] = all[j], all[i] })
	return all
}

func TestChaosPlan(t *testing.T) {
	one, two, other := fmt.Sprint(planChaos(7, 200)), fmt.Sprint(planChaos(7, 200)), fmt.Sprint(planChaos(8, 200))
	if one != two {
		t.Error("the same seed gives two sequences")
	}
	if one == other {
		t.Error("two seeds give the same sequence")
	}
	counts := make(map[string]int)
	for _, s := range planChaos(9, 0) {
		counts[s.kind]++
	}
	for _, kind := range chaosKinds {
		if counts[kind] != 1000 && (kind != chaosKill || counts[kind] != 10_000) {
			t.Errorf("%s: %d times", kind, counts[kind])
		}
	}
}

// chaosRun is a run in progress.
type chaosRun struct {
	t       *testing.T
	p       *preforktest.Program
	dir     string
	address string
	pipe    *slackPipe
	manager int
	workers []int // by their ordinal
	max     int
	step    string

	mu   sync.Mutex
	cut  map[int]bool   // workers whose end may cut a connection
	cuts []time.Time    // when something may have been cut
	out  [][2]time.Time // from when to when there was no program
	fail []chaosFailure
	said []string // by programs that have ended
}

// chaosFailure is a request that failed.
type chaosFailure struct {
	worker   int // 0 if none had answered
	from, to time.Time
	err      error
}

func TestChaos(t *testing.T) {
	seed, steps := *chaosSeed, *chaosSteps
	if seed == 0 {
		seed = uint64(time.Now().UnixNano())
	}
	if steps == 0 && !*long {
		steps = 100
	}
	plan := planChaos(seed, steps)
	t.Logf("go test -run 'Chaos$' -chaos.seed %d -chaos.steps %d", seed, steps)
	other := preforktest.Start(t, "stranger")
	other.Expect(`^stranger`)
	r := &chaosRun{t: t, dir: t.TempDir(), cut: make(map[int]bool), pipe: newSlackPipe(t)}
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r.address = ln.Addr().String()
	ln.Close()
	defer func() {
		if t.Failed() {
			t.Log(r.step)
		}
	}()
	r.start()
	r.settle()
	load := preforktest.StartLoad(t, 4, r.request)
	counts := make(map[string]int)
	began := time.Now()
	for i, s := range plan {
		r.step = fmt.Sprintf("step %d of %d, seed %d: %s (also %t)", i+1, len(plan), seed, s.kind, s.also)
		r.do(s)
		r.settle()
		counts[s.kind]++
		if i%1000 == 999 {
			t.Logf("%d steps done in %v", i+1, time.Since(began).Round(time.Second))
		}
	}
	result := load.Stop()
	r.p.Signal(term)
	wantSuccess(t, r.p)
	r.judge()
	other.Signal(term)
	other.Expect(`^stranger got terminated$`)
	if lines := other.Lines(); len(lines) != 2 {
		t.Errorf("a stranger was signalled: %q", lines)
	}
	t.Logf("%d requests, %d cut by a death, the longest took %v; %v", result.Requests, result.Failed, result.Longest.Round(time.Millisecond), counts)
}

// start starts the program.
func (r *chaosRun) start() {
	r.t.Helper()
	r.p = preforktest.New(r.t, "chaos", r.dir, r.address)
	r.p.Cmd.Stderr = r.pipe.w
	r.p.Start()
	r.p.Expect(`^manager`) // from here on it hears signals
}

func (r *chaosRun) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s: %s", r.step, fmt.Sprintf(format, args...))
}

// request is one request, and notes if it fails.
func (r *chaosRun) request(int) (err error) {
	time.Sleep(time.Duration(rand.IntN(4)) * time.Millisecond)
	f := chaosFailure{from: time.Now()}
	defer func() {
		if err != nil {
			f.to, f.err = time.Now(), err
			r.mu.Lock()
			r.fail = append(r.fail, f)
			r.mu.Unlock()
			time.Sleep(10 * time.Millisecond)
		}
	}()
	conn, err := net.DialTimeout("tcp", r.address, 20*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	in := bufio.NewReader(conn)
	line, err := in.ReadString('\n')
	if err != nil {
		return fmt.Errorf("no answer: %w", err)
	}
	f.worker, _ = strconv.Atoi(strings.TrimSpace(line))
	if line, err = in.ReadString('\n'); err != nil || line != "done\n" {
		return fmt.Errorf("the answer of %d ends with %q: %w", f.worker, line, err)
	}
	return nil
}

// settle waits until all is as it should be.
func (r *chaosRun) settle() {
	r.t.Helper()
	why := ""
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if why = r.look(); why == "" {
			return
		}
		if time.Now().After(end) {
			r.fatalf("not as it should be after a minute: %s", why)
		}
	}
}

// look says what is not as it should be: the Snapshot and the kernel agree on who is there, there are as many ready workers as
// there should be, nobody is a zombie, and the reaper has one child.
func (r *chaosRun) look() (why string) {
	r.t.Helper()
	managers, err := preforktest.Children(r.p.PID())
	if err != nil || len(managers) != 1 {
		return fmt.Sprintf("the reaper's children: %v, %v", managers, err)
	}
	r.p.Signal(syscall.SIGWINCH)
	got := r.p.Expect(`^snapshot of (\d+), max (\d+):(.*)$`)
	r.manager, _ = strconv.Atoi(got[1])
	r.max, _ = strconv.Atoi(got[2])
	if r.manager != managers[0].PID {
		return fmt.Sprintf("manager %d, and the reaper's child is %d", r.manager, managers[0].PID)
	}
	r.workers = nil
	ready, standby := 0, 0
	known := make(map[int]bool)
	for _, w := range strings.Fields(got[3]) {
		pid, state, _ := strings.Cut(w, "=")
		n, _ := strconv.Atoi(pid)
		known[n] = true
		switch state {
		case "ready":
			ready++
			r.workers = append(r.workers, n)
		case "standby":
			standby++
		}
	}
	if ready != r.max || standby > 1 || len(known) != ready+standby {
		return got[0]
	}
	children, err := preforktest.Children(r.manager)
	if err != nil || len(children) != len(known) {
		return fmt.Sprintf("%s; the kernel knows %v, %v", got[0], children, err)
	}
	for _, c := range children {
		if !known[c.PID] || c.State == 'Z' {
			return fmt.Sprintf("%s; the kernel knows %v", got[0], c)
		}
	}
	return ""
}

// kill sends a worker what ends it, and with it what it has under way.
func (r *chaosRun) kill(target int, sig syscall.Signal) {
	pid := r.workers[target%len(r.workers)]
	r.mayCut(pid)
	if err := syscall.Kill(pid, sig); err != nil && err != syscall.ESRCH {
		r.fatalf("kill %d: %v", pid, err)
	}
}

func (r *chaosRun) mayCut(pids ...int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, pid := range pids {
		r.cut[pid] = true
	}
	r.cuts = append(r.cuts, time.Now())
}

// with has a file there while f runs.
func (r *chaosRun) with(name string, f func()) {
	path := filepath.Join(r.dir, name)
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		r.fatalf("%v", err)
	}
	f()
	if err := os.Remove(path); err != nil {
		r.fatalf("%v", err)
	}
}

// do does one step, up to where its outcome is known.
func (r *chaosRun) do(s chaosStep) {
	also := func() {
		if s.also {
			r.kill(s.target+1, syscall.SIGKILL)
		}
	}
	outcome := func(sig syscall.Signal, good, bad string) {
		r.p.Signal(sig)
		also()
		if s.also { // which may take a new worker, too
			good += "|" + bad
		}
		r.p.Expect("^(" + good + ")")
	}
	switch s.kind {
	case chaosKill:
		r.kill(s.target, syscall.SIGKILL)
	case chaosCrash:
		r.kill(s.target, []syscall.Signal{syscall.SIGABRT, syscall.SIGQUIT, syscall.SIGSEGV, hup}[s.target%4])
	case chaosStop:
		pid := r.workers[s.target%len(r.workers)]
		syscall.Kill(pid, syscall.SIGSTOP)
		also()
		r.settle()
		syscall.Kill(pid, syscall.SIGCONT)
	case chaosEnd:
		syscall.Kill(r.workers[s.target%len(r.workers)], term)
	case chaosSignal:
		r.p.Signal(syscall.SIGALRM)
		also()
	case chaosGrow:
		r.p.Signal(syscall.SIGTTIN)
		also()
	case chaosShrink:
		r.p.Signal(syscall.SIGTTOU)
		also()
	case chaosRoll:
		outcome(hup, "rolled", "roll failed")
	case chaosReload:
		r.p.Signal(usr1)
		also()
	case chaosBreak:
		r.with("broken", func() { outcome(hup, "roll failed", "roll failed") })
	case chaosUpgrade:
		outcome(syscall.SIGUSR2, "upgraded", "upgraded")
	case chaosBadUpgrade:
		r.with("broken", func() { r.p.Signal(syscall.SIGUSR2); r.p.Expect("^upgrade failed") })
	case chaosSlow:
		r.with("slow", func() {
			r.kill(s.target, syscall.SIGKILL)
			also()
			r.settle()
		})
	case chaosCannotSpawn:
		r.with("cannot spawn", func() {
			r.kill(s.target, syscall.SIGKILL)
			also()
			if s.target%2 == 0 { // with a standby the first takes no spawn
				r.p.Expect("^spawn failed")
			}
		})
	case chaosFullPipe:
		r.pipe.fill()
		r.kill(s.target, syscall.SIGKILL)
		also()
		r.settle()
		r.pipe.drain()
	case chaosFreeze:
		thaw := preforktest.Freeze(r.t, r.manager)
		r.kill(s.target, syscall.SIGKILL)
		also()
		thaw()
	case chaosOrphans:
		r.with("leaves orphans", func() {
			r.kill(s.target, syscall.SIGKILL)
			r.settle()
		})
	case chaosMurder:
		r.murder()
	}
}

// murder kills the manager, whose workers end as orphans, and the reaper with it; and starts the program again.
func (r *chaosRun) murder() {
	children, err := preforktest.Children(r.manager)
	if err != nil {
		r.fatalf("%v", err)
	}
	for _, c := range children {
		r.mayCut(c.PID)
	}
	from := time.Now()
	syscall.Kill(r.manager, syscall.SIGKILL)
	r.p.Wait()
	r.p.WaitGone()
	r.said = append(r.said, r.p.Lines()...)
	r.start()
	r.settle()
	r.out = append(r.out, [2]time.Time{from, time.Now()})
}

// judge looks at the requests that failed: only the end of a worker that was not let drain may have cut one.
func (r *chaosRun) judge() {
	for _, line := range append(r.said, r.p.Lines()...) {
		var pid int
		var at int64
		var reason string
		if n, _ := fmt.Sscanf(line, "exit %d at %d: %s", &pid, &at, &reason); n == 3 && reason != "stopped" && reason != "retired" && reason != "finished" {
			r.cut[pid] = true
			r.cuts = append(r.cuts, time.Unix(0, at))
		}
	}
	for _, f := range r.fail {
		if f.worker != 0 && r.cut[f.worker] {
			continue
		}
		cut := slices.ContainsFunc(r.out, func(out [2]time.Time) bool { return f.to.After(out[0]) && f.from.Before(out[1]) })
		for _, at := range r.cuts {
			cut = cut || at.After(f.from.Add(-time.Second)) && at.Before(f.to)
		}
		if f.worker != 0 || !cut {
			r.t.Errorf("a request was lost, from %v to %v: %v", f.from, f.to, f.err)
		}
	}
}

// A slackPipe is a pipe for a log, which is read, or not.
type slackPipe struct {
	t    *testing.T
	r, w *os.File
	more *os.File      // the same pipe, opened once more: it does not block
	gate chan struct{} // who has what is in it may read
}

func newSlackPipe(t *testing.T) *slackPipe {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	more, err := os.OpenFile(fmt.Sprintf("/proc/self/fd/%d", w.Fd()), os.O_WRONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		t.Fatal(err)
	}
	s := &slackPipe{t: t, r: r, w: w, more: more, gate: make(chan struct{}, 1)}
	s.drain()
	done := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			s.gate <- <-s.gate
			if _, err := r.Read(buf); err != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		w.Close()
		more.Close()
		<-done
		r.Close()
	})
	return s
}

// fill leaves no room in the pipe, and nobody reads from then on. (The reader may be in a Read, and take one more buffer.)
func (s *slackPipe) fill() {
	<-s.gate
	conn, err := s.more.SyscallConn()
	if err != nil {
		s.t.Fatal(err)
	}
	for range 3 {
		conn.Control(func(fd uintptr) {
			for err := error(nil); err == nil; {
				_, err = syscall.Write(int(fd), make([]byte, 4096))
			}
		})
	}
}

func (s *slackPipe) drain() { s.gate <- struct{}{} }
