//go:build linux

package sockets_test

import (
	"fmt"
	"syscall"
	"testing"

	"github.com/prefork-go/prefork/internal/testprog"
)

// A queued connection is served after any change of the workers: it is
// established, its request is in flight, and no worker has accepted it.

// All workers are replaced several times before one accepts.
func TestQueuedThroughReplacement(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"reload": hup, "rolling": usr1} {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, listen string) {
				f := startFleet(t, 4, listen, "refuse=3")
				f.open()
				f.ready(4, 1)
				conns := f.queue(50)
				for gen := 2; gen <= 4; gen++ {
					f.Signal(sig)
					f.ready(4, gen)
					if gen == 2 {
						conns = append(conns, f.queue(50)...)
					}
				}
				for _, a := range f.served(conns) {
					if a.generation != 4 {
						t.Errorf("served by generation %d", a.generation)
					}
				}
				f.end()
			})
		})
	}
}

// A slot has no worker for an hour. Others serve its queue, and it gets no new
// connections.
func TestQueuedOnACrashedSlot(t *testing.T) {
	eachMode(t, func(t *testing.T, listen string) {
		f := startFleet(t, 4, listen, "respawn=1h")
		pids := f.ready(4, 1)
		conns := f.queue(100)
		syscall.Kill(pids[3], syscall.SIGKILL)
		f.Expect(`^delay 3$`)
		conns = append(conns, f.queue(100)...)
		if listen == "listen=own" {
			conns = append(conns, f.wantSpread(3)...)
		}
		f.open()
		f.served(conns)
		f.ask(200)
		f.end()
	})
}

// Connections arrive before the first worker is ready, and one slot never has a
// ready worker.
func TestQueuedBeforeTheFirstWorker(t *testing.T) {
	eachMode(t, func(t *testing.T, listen string) {
		f := newFleet(t, 4, listen, "respawn=1h", "hold")
		f.write("crash", "1 before")
		f.Start()
		f.listens()
		f.open()
		conns := f.queue(100)
		f.command("go")
		f.ExpectN(4, `^(ready [023]|delay 1)`)
		f.served(conns)
		f.ask(100)
		f.end()
	})
}

// The workers of a slot exit repeatedly and without a delay, before they are
// ready or right after.
func TestQueuedOnCrashingSlot(t *testing.T) {
	for _, when := range []string{"before", "after"} {
		t.Run(when, func(t *testing.T) {
			eachMode(t, func(t *testing.T, listen string) {
				f := startFleet(t, 4, listen, "respawn=-1s")
				pids := f.ready(4, 1)
				conns := f.queue(100)
				f.write("crash", "2 "+when)
				syscall.Kill(pids[2], syscall.SIGKILL)
				f.ExpectN(5, `^gone 2`)
				conns = append(conns, f.queue(100)...)
				f.ExpectN(5, `^gone 2`)
				f.open()
				f.served(conns)
				f.ask(testprog.Times(1000))
				f.ExpectN(5, `^gone 2`)
				f.end()
			})
		})
	}
}

// The pool shrinks from 8 to 2 and grows to 8 again.
func TestQueuedThroughResize(t *testing.T) {
	eachMode(t, func(t *testing.T, listen string) {
		f := startFleet(t, 8, listen)
		f.ready(8, 1)
		conns := f.queue(100)
		f.command("max 2")
		f.ExpectN(6, `^gone [2-7]`)
		conns = append(conns, f.queue(100)...)
		f.open()
		for _, a := range f.served(conns) {
			if a.slot > 1 {
				t.Errorf("served by slot %d", a.slot)
			}
		}
		f.ask(100)
		f.command("max 8")
		f.ready(6, 1)
		if listen == "listen=own" {
			f.wantSlots("tcp", f.addrs[0], 8)
		}
		if counts := f.ask(800); listen == "listen=own" {
			for slot := range 8 {
				if counts[slot] < 50 || counts[slot] > 200 {
					t.Errorf("of 800: %v", counts)
					break
				}
			}
		}
		f.end()
	})
}

// The new slot of a grown pool never has a ready worker; also with one slot
// before, and with none.
func TestNewSlotWithoutWorker(t *testing.T) {
	for _, from := range []int{1, 3, 0} {
		t.Run(fmt.Sprint("from ", from), func(t *testing.T) {
			f := startFleet(t, max(1, from), "respawn=1h")
			f.open()
			f.ready(max(1, from), 1)
			if from == 0 {
				f.command("max 0")
				f.Expect(`^gone 0`)
			}
			conns := f.queue(20)
			f.write("crash", fmt.Sprint(max(1, from), " before"))
			f.command(fmt.Sprint("max ", from+2-min(from, 1)))
			f.Expect(fmt.Sprintf(`^delay %d$`, max(1, from)))
			f.served(conns)
			f.ask(100)
			f.end()
		})
	}
}

// Workers are killed with connections in their queues.
func TestQueuedOnKilledWorkers(t *testing.T) {
	for _, respawn := range []string{"-1s", "1h"} {
		t.Run(respawn, func(t *testing.T) {
			eachMode(t, func(t *testing.T, listen string) {
				f := startFleet(t, 4, listen, "respawn="+respawn)
				pids := f.ready(4, 1)
				conns := f.queue(100)
				for _, slot := range []int{0, 2, 3} {
					syscall.Kill(pids[slot], syscall.SIGKILL)
					f.Expect(fmt.Sprintf(`^gone %d`, slot))
				}
				f.open()
				f.served(conns)
				f.end()
			})
		})
	}
}
