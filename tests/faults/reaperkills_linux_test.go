package faults_test

import (
	"bufio"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() {
	preforktest.Register("hostile", hostile)
	preforktest.Register("twoReapers", twoReapers)
}

// The processes that a worker of hostile starts. Each prints its name and its pid
// when it cannot be ended by TERM any more.
const (
	// daemon.sh ignores the signals that can be ignored. Its parents have exited,
	// it leads a session, and it has a child of its own.
	daemon = `trap '' TERM HUP INT QUIT USR1
( setsid sh -c "trap '' TERM HUP INT QUIT; (sleep 1000 & echo descendant of daemon, \$!; wait) & echo descendant daemon, \$\$; wait" & )`
	stubborn = `trap '' TERM HUP INT; echo descendant stubborn, $$; while :; do sleep 1000; done`
	// A comet lives only to start the next one, this number of times.
	comet = `fly() { [ $1 -gt 0 ] && fly $(($1-1)) & }; setsid true; fly 20000; echo descendant comet, $$`
	// A brood is born while it is being killed.
	brood = `echo descendant brood, $$; i=0; while [ $i -lt 400 ]; do sleep 1000 & i=$((i+1)); done; wait`
)

// hostile is a program whose worker leaves processes behind that do not want to
// end. The arguments are the files for a lock and for the pids of the processes,
// which a program that has the lock looks for. If the lock is held, it ends.
func hostile() {
	if prefork.ReaperPID() == 0 && !prefork.IsWorker() {
		lockOnce(os.Args[1], os.Args[2])
	}
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: 1, ReaperKills: true, ErrRespawnInterval: -1, StopTimeout: -1, OrphanTimeout: time.Hour,
		TrapSignals: prefork.Signals{term: {Signal: term}, syscall.SIGUSR2: {Upgrade: true}},
	})
	if !prefork.IsWorker() {
		testprog.Print("manager %d below %d", os.Getpid(), os.Getppid())
	}
	err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		ctx := w.Context()
		pids, err := os.OpenFile(os.Args[2], os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
		if err != nil {
			return err
		}
		fmt.Fprintln(pids, os.Getpid())
		for _, script := range os.Args[3:] {
			cmd := exec.Command("sh", "-c", script)
			if script == "other user" {
				cmd = exec.Command("sh", "-c", stubborn)
				cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}, Setsid: true}
			}
			out, err := cmd.StdoutPipe()
			if err != nil {
				return err
			}
			cmd.Stderr = os.Stderr
			if err := cmd.Start(); err != nil {
				return err
			}
			lines := bufio.NewScanner(out)
			for n := strings.Count(script, "echo") + strings.Count(script, "other"); n > 0 && lines.Scan(); n-- {
				_, pid, _ := strings.Cut(lines.Text(), ", ")
				fmt.Fprintln(pids, pid)
			}
		}
		testprog.Print("worker %d of %d", os.Getpid(), w.ManagerPID())
		<-ctx.Done()
		return nil
	})
	testprog.Print("manager %d ends: %v", os.Getpid(), err)
}

// lockOnce takes the lock, which the reapers inherit, or ends the program. It
// reports how many of the processes in the other file are there.
func lockOnce(lock, pids string) {
	f, err := os.OpenFile(lock, os.O_CREATE|os.O_RDWR, 0o600)
	if err == nil {
		err = syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		testprog.Print("not started: %v", err)
		os.Exit(0)
	}
	left, all := leftOf(pids)
	testprog.Print("started, %d of %d are left", left, all)
	unix.FcntlInt(f.Fd(), unix.F_SETFD, 0)
}

// leftOf returns how many of the processes in a file are there, and removes it.
func leftOf(pids string) (left, all int) {
	text, _ := os.ReadFile(pids)
	os.Remove(pids)
	for word := range strings.FieldsSeq(string(text)) {
		if pid, _ := strconv.Atoi(word); pid <= 0 || syscall.Kill(pid, 0) != syscall.ESRCH {
			left++
		}
		all++
	}
	return left, all
}

// hostileScripts are the processes of all kinds.
func hostileScripts() []string {
	scripts := []string{daemon, stubborn}
	if os.Getuid() == 0 {
		scripts = append(scripts, "other user")
	}
	return scripts
}

// A hostileProgram is one of its copies, and the pids of the processes above its
// workers.
type hostileProgram struct {
	*preforktest.Program
	pids    map[string]int
	started time.Time // it had the lock
	refused int       // copies before it that did not have it
}

// startHostile starts the program until it has the lock. Then no process of the
// copy before may be left.
func startHostile(t *testing.T, args ...string) hostileProgram {
	t.Helper()
	for refused := 0; ; refused++ {
		p := preforktest.Start(t, "hostile", args...)
		if line := p.NextLine(); strings.HasPrefix(line, "not started") {
			if testprog.ExpectSuccess(t, p); refused == 300 {
				t.Fatalf("the lock is not free: %s", line)
			}
			continue
		} else if !strings.HasPrefix(line, "started, 0 of ") {
			t.Errorf("after %d refusals: %s", refused, line)
		}
		started := time.Now()
		found := p.Expect(`^manager (\d+) below (\d+)$`)
		p.Expect(`^worker`)
		manager, _ := strconv.Atoi(found[1])
		reaper, _ := strconv.Atoi(found[2])
		return hostileProgram{p, map[string]int{"guard": p.PID(), "reaper": reaper, "manager": manager}, started, refused}
	}
}

// wantNone fails the test if a process of the program is left.
func (p hostileProgram) wantNone(t *testing.T) {
	t.Helper()
	if left, err := p.Descendants(); err != nil || len(left) > 0 {
		t.Errorf("%v are left, %v", left, err)
	}
}

// end ends one of the processes above the workers, or the program by TERM. When
// the lock is free, no process of the program may be left.
func (p hostileProgram) end(t *testing.T, who, lock, pids string) {
	t.Helper()
	f, err := os.Open(lock)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	from := time.Now()
	if who == "none" {
		p.Signal(term)
	} else {
		syscall.Kill(p.pids[who], syscall.SIGKILL)
	}
	preforktest.WaitFor(t, "the lock is free", func() bool { return syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB) == nil })
	took := time.Since(from).Round(100 * time.Microsecond)
	left, all := leftOf(pids)
	t.Logf("%s of the three killed: %d of %d processes left after %v", who, left, all, took)
	if left != 0 || all == 0 {
		t.Errorf("%d of %d processes are left", left, all)
	}
	p.wantNone(t)
	p.Wait()
}

// hostileFiles returns the names of the files for hostile.
func hostileFiles(t *testing.T) (lock, pids string) {
	dir := preforktest.TempDir(t)
	lock, pids = filepath.Join(dir, "lock"), filepath.Join(dir, "pids")
	t.Cleanup(func() { os.Remove(lock); os.Remove(pids) })
	return lock, pids
}

// A hostile program is gone soon after SIGKILL of any of the three processes above
// the workers, and after an orderly end. No second copy starts before.
func TestReaperKills(t *testing.T) {
	lock, pids := hostileFiles(t)
	args := append([]string{lock, pids}, hostileScripts()...)
	p := startHostile(t, args...)
	for n := range testprog.Times(60) {
		who := []string{"guard", "reaper", "manager"}[n%3]
		from := time.Now()
		syscall.Kill(p.pids[who], syscall.SIGKILL)
		next := startHostile(t, args...) // at once
		t.Logf("%s killed: started again after %v; %d copies were refused", who, next.started.Sub(from).Round(time.Millisecond), next.refused)
		p.wantNone(t)
		if ws := p.Wait().Sys().(syscall.WaitStatus); ws.Signal() != syscall.SIGKILL {
			t.Errorf("the %s was killed, and the guard ended with %v", who, p.Cmd.ProcessState)
		}
		p = next
	}
	p.end(t, "none", lock, pids)
	testprog.ExpectSuccess(t, p.Program)
}

// Processes that are born while the reaper kills are killed as well, also if each
// lives only until it has started the next one.
func TestReaperKillsNewborn(t *testing.T) {
	for name, script := range map[string]string{"comet": comet, "brood": brood} {
		t.Run(name, func(t *testing.T) {
			lock, pids := hostileFiles(t)
			for _, who := range []string{"guard", "reaper", "manager", "none"} {
				startHostile(t, lock, pids, script).end(t, who, lock, pids)
			}
		})
	}
}

// After an upgrade the reapers are the same, and kill as before.
func TestReaperKillsAfterUpgrade(t *testing.T) {
	lock, pids := hostileFiles(t)
	for _, who := range []string{"guard", "reaper", "manager"} {
		p := startHostile(t, lock, pids, daemon)
		for range 2 {
			p.Signal(syscall.SIGUSR2)
			successor, _ := strconv.Atoi(p.Expect(`^manager (\d+) below ` + strconv.Itoa(p.pids["manager"]) + `$`)[1])
			p.Expect(fmt.Sprintf(`^manager %d ends: <nil>$`, p.pids["manager"]))
			p.pids["manager"] = successor
		}
		p.end(t, who, lock, pids)
	}
}

// twoReapers asks for a reaper, and then for one that kills.
func twoReapers() {
	testprog.NewManager(prefork.Config{Name: "first", Reaper: true})
	_, err := prefork.New(prefork.Config{Name: "second", ReaperKills: true})
	testprog.Print("%v", err)
}

// A program that has another reaper does not believe that this one kills.
func TestReaperDoesNotKill(t *testing.T) {
	p := preforktest.Start(t, "twoReapers")
	p.Expect(`^prefork: Config.ReaperKills: the program runs below a reaper that does not kill`)
	testprog.ExpectSuccess(t, p)
}
