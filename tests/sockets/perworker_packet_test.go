//go:build linux

package sockets_test

import (
	"fmt"
	"log"
	"net"
	"os"
	"os/signal"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { programs["packets"] = packets }

// packets answers each datagram with the slot that has read it and the pid of its
// manager. Its arguments are a directory, as of perWorker, the number of standbys,
// and ErrRespawnInterval. The manager reads lines as perWorker does, and a worker closes its
// socket on SIGWINCH.
func packets() {
	workers, _ := strconv.Atoi(contents(os.Args[1], "workers"))
	standbys, _ := strconv.Atoi(os.Args[2])
	respawn, _ := time.ParseDuration(os.Args[3])
	pm := testprog.NewManager(prefork.Config{
		MaxWorkers: workers, Standby: standbys, MaxSurge: 2, ErrRespawnInterval: respawn, Observe: sayEvent,
		TrapSignals: prefork.Signals{term: {Signal: term}, usr1: {Rolling: true}, syscall.SIGUSR2: {Upgrade: true}},
	})
	conn, err := pm.ListenPacketPerWorker("udp", "127.0.0.1:0")
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() {
		testprog.Print("on udp %s per worker %t", conn.LocalAddr(), pm.Snapshot().Sockets[0].PerWorker)
		go obey(pm, nil, nil)
	}
	testprog.UntilTerm(pm, func(w *prefork.Worker) error {
		leave := make(chan os.Signal, 1)
		signal.Notify(leave, syscall.SIGWINCH)
		go func() {
			select {
			case <-leave:
			case <-w.Context().Done():
			}
			conn.Close()
		}()
		buf := make([]byte, 100)
		for {
			n, from, err := conn.ReadFrom(buf)
			if err != nil {
				<-w.Context().Done()
				return nil
			}
			conn.WriteTo(fmt.Appendf(nil, "%s %d %d", buf[:n], w.Slot(), w.ManagerPID()), from)
		}
	})
}

// flows are the clients of a packets program.
type flows struct {
	*fleet
	clients []net.Conn
	asked   int
	manager string // that has answered last
}

func startFlows(t *testing.T, workers, standbys int, respawn string) *flows {
	t.Helper()
	f := &flows{fleet: newFleet(t, workers)}
	f.Program = preforktest.New(t, "packets", f.dir, strconv.Itoa(standbys), respawn)
	f.Cmd.Stdin = f.stdin
	f.Start()
	f.listens()
	f.ready(workers, 1)
	for range 64 {
		c, err := net.Dial("udp", f.addrs[0])
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		f.clients = append(f.clients, c)
	}
	return f
}

// ask returns the slot that answers a client. Datagrams in the socket of a worker
// that was killed have no answer: ask sends another.
func (f *flows) ask(client int) (slot int) {
	f.t.Helper()
	c, buf := f.clients[client], make([]byte, 100)
	preforktest.WaitFor(f.t, fmt.Sprint("an answer for client ", client), func() bool {
		f.asked++
		fmt.Fprint(c, f.asked)
		for c.SetReadDeadline(time.Now().Add(time.Second)); ; {
			n, err := c.Read(buf)
			if err != nil {
				return false
			}
			got := strings.Fields(string(buf[:n]))
			if got[0] == strconv.Itoa(f.asked) { // not a late one
				slot, _ = strconv.Atoi(got[1])
				f.manager = got[2]
				return true
			}
		}
	})
	return slot
}

// slots returns the slot of each client, when n slots have some and each client has
// been answered by its slot twice: the last worker may become ready in between.
func (f *flows) slots(n int) (slots []int) {
	f.t.Helper()
	preforktest.WaitFor(f.t, fmt.Sprint("answers of ", n, " slots"), func() bool {
		before := slots
		slots = nil
		seen := make(map[int]bool)
		for i := range f.clients {
			slots = append(slots, f.ask(i))
			seen[slots[i]] = true
		}
		return len(seen) == n && slices.Equal(slots, before)
	})
	return slots
}

// wantSame fails for each client that has another slot than before, except those
// whose slot was gone.
// The manager may print that a worker is ready before it steers.
func (f *flows) wantSame(what string, before []int, slots, gone int) {
	f.t.Helper()
	preforktest.WaitFor(f.t, what+": clients stay in their slots", func() bool {
		after := f.slots(slots)
		for i := range before {
			if same := before[i] == after[i]; same == (before[i] == gone) {
				return false
			}
		}
		return true
	})
}

// The datagrams of a client reach one slot: through a rolling reload, the
// promotion of a standby, and an upgrade. More workers get clients of others.
func TestPacketsPerWorker(t *testing.T) {
	f := startFlows(t, 3, 1, "-1s")
	pids := make(map[int]int)
	for _, line := range f.Lines() {
		var slot, pid int
		if n, _ := fmt.Sscanf(line, "ready %d gen 1 pid %d", &slot, &pid); n == 2 {
			pids[slot] = pid
		}
	}
	home := f.slots(3)
	f.wantSame("again", home, 3, -1)
	syscall.Kill(pids[1], syscall.SIGKILL)
	f.Expect(`^ready 1 gen 1 `)
	f.wantSame("a standby in slot 1", home, 3, -1)
	f.Signal(usr1)
	f.Expect(`^rolled 2$`)
	f.wantSame("rolling", home, 3, -1)
	f.upgrade(3)
	f.wantSame("upgrade", home, 3, -1)
	if f.manager != strconv.Itoa(f.successor) {
		t.Errorf("answered by workers of %s, want %d", f.manager, f.successor)
	}
	f.command("max 5")
	f.slots(5)
	syscall.Kill(f.successor, term)
	f.WaitGone()
}

// The clients of a slot without a worker, or whose worker has closed its socket,
// are answered by others. The rest stays where it is.
func TestPacketsOfASlotWithoutWorker(t *testing.T) {
	for name, sig := range map[string]syscall.Signal{"crashed": syscall.SIGKILL, "closed": syscall.SIGWINCH} {
		t.Run(name, func(t *testing.T) {
			f := startFlows(t, 4, 0, "1h")
			home := f.slots(4)
			for _, line := range f.Lines() {
				var pid int
				if n, _ := fmt.Sscanf(line, "ready 2 gen 1 pid %d", &pid); n == 1 {
					syscall.Kill(pid, sig)
				}
			}
			f.wantSame("slot 2", home, 3, 2)
			f.end()
		})
	}
}
