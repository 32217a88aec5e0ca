//go:build linux

package sockets_test

import (
	"fmt"
	"net"
	"slices"
	"strconv"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/preforktest"
)

// upgrade starts a successor with n workers and waits until the manager before
// it has exited.
func (f *fleet) upgrade(n int) (pids map[int]int) {
	f.t.Helper()
	f.write("workers", strconv.Itoa(n))
	f.Signal(syscall.SIGUSR2)
	pids = make(map[int]int)
	for _, m := range f.ExpectN(n+1, `^(?:successor (\d+)|ready (\d+) gen 1 pid (\d+))$`) {
		if m[1] != "" {
			f.successor, _ = strconv.Atoi(m[1])
			continue
		}
		slot, _ := strconv.Atoi(m[2])
		pids[slot], _ = strconv.Atoi(m[3])
	}
	f.Wait()
	return pids
}

// A successor with as many workers, more or fewer, inherits the queues, steers,
// and grows.
func TestPerWorkerUpgrade(t *testing.T) {
	for _, n := range [][2]int{{4, 4}, {4, 2}, {2, 6}, {1, 3}, {3, 1}} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			f := startFleet(t, n[0], "respawn=1h")
			f.ready(n[0], 1)
			conns := f.queue(100)
			pids := f.upgrade(n[1])
			conns = append(conns, f.wantSpread(n[1])...)
			alive := n[1] + 4 // in the end
			if n[1] > 1 {
				syscall.Kill(pids[0], syscall.SIGKILL)
				f.Expect(`^delay 0$`)
				alive--
				conns = append(conns, f.wantSpread(n[1]-1)...)
			}
			f.open()
			for _, a := range append(f.served(conns), f.served(f.queue(100))...) {
				if a.manager != f.successor {
					t.Errorf("served by manager %d, not %d", a.manager, f.successor)
				}
			}
			f.command(fmt.Sprint("max ", n[1]+4))
			f.ready(4, 1)
			f.wantSlots("tcp", f.addrs[0], alive)
			syscall.Kill(f.successor, term)
			f.WaitGone()
		})
	}
}

// A failed successor changes nothing, even if it had more sockets than the
// manager.
func TestPerWorkerUpgradeFails(t *testing.T) {
	for _, n := range [][2]int{{4, 8}, {1, 3}, {4, 2}} {
		t.Run(fmt.Sprint(n), func(t *testing.T) {
			f := startFleet(t, n[0], "respawn=1h")
			pids := f.ready(n[0], 1)
			conns := f.queue(100)
			f.write("workers", strconv.Itoa(n[1]))
			f.write("crash", fmt.Sprint(n[1]-1, " before"))
			f.Signal(syscall.SIGUSR2)
			f.Expect(`INFO worker starting slot=` + strconv.Itoa(n[1]-1))
			conns = append(conns, f.queue(100)...)
			f.Expect(`^no successor: `)
			f.write("crash", "")
			conns = append(conns, f.queue(100)...)
			// The manager still knows the sockets' positions in the kernel's
			// group.
			f.command(fmt.Sprint("max ", n[0]+2))
			for slot, pid := range f.ready(2, 2) { // Start returned with the signal
				pids[slot] = pid
			}
			syscall.Kill(pids[n[0]], syscall.SIGKILL)
			f.Expect(fmt.Sprintf(`^delay %d$`, n[0]))
			conns = append(conns, f.wantSpread(n[0]+1)...)
			f.open()
			f.served(conns)
			f.ask(200)
			f.end()
		})
	}
}

// A manager that should grow during an upgrade does not take the next position
// in the kernel's group, on which the successor relies. After the takeover, no
// new connection waits for a manager that drains.
func TestPerWorkerUpgradeWhileGrowing(t *testing.T) {
	f := startFleet(t, 2, "respawn=1h", "grow=3")
	f.ready(2, 1)
	f.open()
	// calls no Listen yet, so that the first manager has to wait
	held, err := net.Dial("tcp", f.addrs[0])
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	preforktest.WaitFor(t, "the connection is accepted", func() bool {
		all := f.sockets("01")                   // established
		return len(all) == 1 && all[0][9] != "0" // a queued connection has no inode yet
	})
	f.write("workers", "3")
	f.Signal(syscall.SIGUSR2)
	f.successor, _ = strconv.Atoi(f.Expect(`^successor (\d+)$`)[1])
	f.wantSlots("tcp", f.addrs[0], 3)
	preforktest.WaitFor(t, "the workers of the first manager accept no more", func() bool {
		children, err := preforktest.Children(f.PID())
		if err != nil {
			t.Fatal(err)
		}
		return !slices.ContainsFunc(children, func(c preforktest.Proc) bool { return c.PID != f.successor && len(f.holds(c.PID)) > 0 })
	})
	for _, a := range f.served(f.queue(200)) {
		if a.manager != f.successor {
			t.Errorf("served by manager %d, not %d", a.manager, f.successor)
		}
	}
	if _, err := held.Write([]byte("?")); err != nil {
		t.Fatal(err)
	}
	if a := f.served([]net.Conn{held}); a[0].manager != f.PID() {
		t.Errorf("a connection that the first manager had accepted is served by %d", a[0].manager)
	}
	f.Wait()
	f.ask(200)
	syscall.Kill(f.successor, term)
	f.WaitGone()
}
