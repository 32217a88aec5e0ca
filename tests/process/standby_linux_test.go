package process_test

import (
	"bufio"
	"net"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork/preforktest"
)

// cpus returns the number of CPUs that this thread may use.
func cpus() int {
	var set unix.CPUSet
	unix.SchedGetaffinity(0, &set)
	return set.Count()
}

// The standby answers the connections that are queued on the socket of a dead
// worker's slot, and later ones.
func TestStandbyHasTheSocketOfItsSlot(t *testing.T) {
	p := preforktest.Start(t, "standingBy", "sockets")
	addr := p.Expect(`^listens on (.*)$`)[1]
	up := p.ExpectAll(`^worker 2 in slot 1 .* pid (\d+)`, `starting to standby$`, `starting to ready$`, `starting to ready$`)
	for range 3 {
		pid, _ := strconv.Atoi(up[0][1])
		syscall.Kill(pid, syscall.SIGKILL)
		up = p.ExpectAll(`^worker \d+ in slot 1 .* pid (\d+)`, `slot 1, generation 1, starting to ready$`, `starting to standby$`)
		seen := map[string]int{}
		for range 64 {
			c, err := net.Dial("tcp", addr)
			if err != nil {
				t.Fatal(err)
			}
			c.SetDeadline(time.Now().Add(time.Minute))
			line, err := bufio.NewReader(c).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			seen[line]++
			c.Close()
		}
		if len(seen) != 2 {
			t.Errorf("64 connections were answered by %v, want both slots", seen)
		}
	}
	p.Signal(term)
	p.Expect(`^left 0, <nil>$`)
	p.Wait()
}

func TestStandbyMustNotAcceptEarly(t *testing.T) {
	p := preforktest.Start(t, "standingBy", "early")
	p.Expect(`panic: prefork: Accept on a listener of ListenPerWorker before Start`)
	p.Signal(term)
	p.Wait()
}

func TestStandbyGetsTheCPUsOfItsSlot(t *testing.T) {
	if cpus() < 2 {
		preforktest.Skipf(t, "this machine has one CPU")
	}
	p, pids := standby(t, "cpus")
	syscall.Kill(pids[1], syscall.SIGKILL)
	p.Expect(`^worker 3 in slot 1 .* cpus 1$`)
	p.Signal(term)
	p.Wait()
}

// A standby that has died unnoticed may be promoted. Its exit is reported as
// any other; the failed promotion is not logged.
func TestStandbyKilledWithTheWorker(t *testing.T) {
	p, pids := standby(t, "")
	thaw := preforktest.Freeze(t, p.PID())
	all, err := preforktest.Children(p.PID())
	if err != nil || len(all) != 3 {
		t.Fatalf("children %v, %v", all, err)
	}
	dead := 0
	kill := func(pid int) {
		syscall.Kill(pid, syscall.SIGKILL)
		dead++
		preforktest.WaitFor(t, "a child to die", func() bool {
			zombies, _ := preforktest.Zombies(p.PID())
			return len(zombies) == dead
		})
	}
	kill(pids[1])
	for _, c := range all {
		if !slices.Contains(pids[:], c.PID) {
			kill(c.PID)
		}
	}
	thaw()
	p.ExpectAll(`^2: slot 1, crashed$`, `^3: slot -?1, crashed$`, `slot 1, generation 1, starting to ready$`)
	p.Signal(term)
	p.Expect(`^left 0, <nil>$`)
	p.Wait()
	if text := strings.Join(p.Lines(), "\n"); strings.Contains(text, "ERROR") {
		t.Errorf("an error was logged:\n%s", text)
	}
}
