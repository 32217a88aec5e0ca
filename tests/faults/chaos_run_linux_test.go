package faults_test

import (
	"bufio"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/prefork-go/prefork/preforktest"
)

// start starts the program.
func (r *chaosRun) start() {
	r.t.Helper()
	r.p = preforktest.New(r.t, "chaos", r.dir, r.address)
	r.p.Cmd.Stderr = r.pipe.w
	r.p.Start()
	r.p.Expect(`^manager`) // it receives signals from here on
}

func (r *chaosRun) fatalf(format string, args ...any) {
	r.t.Helper()
	r.t.Fatalf("%s: %s", r.step, fmt.Sprintf(format, args...))
}

// request makes one request and records its failure.
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

// settle waits until everything is in order.
func (r *chaosRun) settle() {
	r.t.Helper()
	why := ""
	for end := time.Now().Add(time.Minute); ; time.Sleep(time.Millisecond) {
		if why = r.check(); why == "" {
			return
		}
		if time.Now().After(end) {
			r.fatalf("not as it should be after a minute: %s", why)
		}
	}
}

// check returns the first disorder, or "". The Snapshot and the kernel's list
// of children must agree, the expected number of workers must be ready, no
// process may be a zombie, and the reaper must have one child.
func (r *chaosRun) check() (why string) {
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

// kill ends a worker together with its requests in flight.
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

// with creates a file for the duration of f.
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

// do runs one step until its outcome is known.
func (r *chaosRun) do(s chaosStep) {
	also := func() {
		if s.also {
			r.kill(s.target+1, syscall.SIGKILL)
		}
	}
	outcome := func(sig syscall.Signal, good, bad string) {
		r.p.Signal(sig)
		also()
		if s.also { // the signal may reach a new worker, too
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
			if s.target%2 == 0 { // with a standby the first worker needs no spawn
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

// murder kills the manager and the reaper, whose workers end as orphans, and
// starts the program again.
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
	r.output = append(r.output, r.p.Lines()...)
	r.start()
	r.settle()
	r.out = append(r.out, [2]time.Time{from, time.Now()})
}

// judge checks the failed requests: each must have been cut by the exit of a
// worker that could not drain.
func (r *chaosRun) judge() {
	for _, line := range append(r.output, r.p.Lines()...) {
		var pid int
		var at int64
		var reason string
		if n, _ := fmt.Sscanf(line, "exit %d at %d: %s", &pid, &at, &reason); n == 3 && reason != "stopped" && reason != "recycled" && reason != "finished" {
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
