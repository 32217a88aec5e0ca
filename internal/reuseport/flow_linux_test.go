package reuseport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// A flowGroup is a group of datagram sockets, and clients with a port each.
type flowGroup struct {
	t       testing.TB
	fds     []int
	clients []net.Conn
}

func newFlowGroup(t testing.TB, n int, network, address string, clients int, dial ...string) *flowGroup {
	t.Helper()
	fds, addr, err := Bind(network, address, n)
	if err != nil {
		t.Skip(err) // no IPv6
	}
	g := &flowGroup{t: t, fds: fds}
	t.Cleanup(func() {
		for _, fd := range g.fds {
			unix.Close(fd)
		}
	})
	for i := range clients {
		to := net.JoinHostPort(dial[i%len(dial)], fmt.Sprint(addr.(*net.UDPAddr).Port))
		c, err := net.Dial("udp", to)
		if err != nil {
			t.Skip(err)
		}
		t.Cleanup(func() { c.Close() })
		g.clients = append(g.clients, c)
	}
	return g
}

func (g *flowGroup) steer(live ...int) {
	g.t.Helper()
	if err := SteerFlows(g.fds[0], len(g.fds), live); err != nil {
		g.t.Fatal(err)
	}
}

// sockets returns the socket that receives a datagram of each client.
func (g *flowGroup) sockets() []int {
	g.t.Helper()
	got := make([]int, len(g.clients))
	for i, c := range g.clients {
		if _, err := c.Write([]byte{byte(i)}); err != nil {
			g.t.Fatal(err)
		}
		// The loopback device delivers before Write returns.
		got[i] = -1
		for j, fd := range g.fds {
			var buf [2]byte
			if n, _, err := unix.Recvfrom(fd, buf[:], unix.MSG_DONTWAIT); n == 1 && got[i] == -1 && buf[0] == byte(i) {
				got[i] = j
			} else if err != unix.EAGAIN {
				g.t.Fatalf("client %d: %d bytes, %v, also on %d", i, n, err, got[i])
			}
		}
		if got[i] == -1 {
			g.t.Fatalf("the datagram of client %d is lost", i)
		}
	}
	return got
}

// A flow stays on its socket while that is live. Only the flows of sockets that are
// not live move, and they return.
func TestFlows(t *testing.T) {
	for _, test := range []struct {
		network, address string
		dial             []string
	}{
		{"udp4", "127.0.0.1:0", []string{"127.0.0.1"}},
		{"udp6", "[::1]:0", []string{"::1"}},
		{"udp", ":0", []string{"127.0.0.1", "::1", "127.0.0.2"}},
	} {
		t.Run(test.network, func(t *testing.T) {
			g := newFlowGroup(t, 8, test.network, test.address, 400, test.dial...)
			g.steer()
			home := g.sockets()
			for i, n := range tally(home, 8) {
				if n < 20 || n > 90 { // 50, and 6.6 is the standard deviation
					t.Errorf("socket %d has %d of 400 flows", i, n)
				}
			}
			for _, live := range [][]int{{0, 1, 3, 4, 6, 7}, {7}, {0}, upTo(8), {6, 2, 4}, {1, 3, 5, 7}, {1, 2, 3, 4, 5, 6}, nil} {
				g.steer(live...)
				got := g.sockets()
				for i := range got {
					switch {
					case live == nil || slices.Contains(live, home[i]):
						if got[i] != home[i] {
							t.Fatalf("live %v: a flow of socket %d went to %d", live, home[i], got[i])
						}
					case !slices.Contains(live, got[i]):
						t.Fatalf("live %v: a flow of socket %d went to %d", live, home[i], got[i])
					}
				}
				if n := len(live); n == 4 || n == 6 { // the other flows are spread over these
					moved := tally(got, 8)
					for _, i := range live {
						if n := moved[i] - tally(home, 8)[i]; n < 2 || n > 150 {
							t.Errorf("live %v: socket %d has %d of the moved flows", live, i, n)
						}
					}
				}
			}
		})
	}
}

func tally(sockets []int, n int) []int {
	counts := make([]int, n)
	for _, i := range sockets {
		counts[i]++
	}
	return counts
}

// Any set of sockets can be live.
func TestFlowsOfRandomSets(t *testing.T) {
	const n = 100
	g := newFlowGroup(t, n, "udp4", "127.0.0.1:0", 50, "127.0.0.1")
	for range 20 {
		live := rand.Perm(n)[:1+rand.IntN(n)]
		g.steer(live...)
		for _, i := range g.sockets() {
			if !slices.Contains(live, i) {
				t.Fatalf("live %v: socket %d got a datagram", live, i)
			}
		}
	}
}

// A socket that joins the group gets no flow before SteerFlows.
func TestFlowsGrow(t *testing.T) {
	g := newFlowGroup(t, 1, "udp4", "127.0.0.1:0", 50, "127.0.0.1")
	g.steer()
	addr, err := unix.Getsockname(g.fds[0])
	if err != nil {
		t.Fatal(err)
	}
	fd, err := Grow("udp4", fmt.Sprint("127.0.0.1:", addr.(*unix.SockaddrInet4).Port))
	if err != nil {
		t.Fatal(err)
	}
	g.fds = append(g.fds, fd)
	if counts := tally(g.sockets(), 2); counts[1] != 0 {
		t.Errorf("a new socket got %d of 50 flows", counts[1])
	}
	g.steer()
	if counts := tally(g.sockets(), 2); counts[0] < 5 || counts[1] < 5 {
		t.Errorf("the flows of two sockets: %v", counts)
	}
	if _, _, err := Bind("udp4", fmt.Sprint("127.0.0.1:", addr.(*unix.SockaddrInet4).Port), 1); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a second program binds: %v", err)
	}
}

// Sets that do not exist or do not fit are an error, and all sockets get flows.
func TestFlowsRefused(t *testing.T) {
	g := newFlowGroup(t, 2, "udp4", "127.0.0.1:0", 100, "127.0.0.1")
	g.steer(1)
	for _, live := range [][]int{{2}, {-1, 0}} {
		if err := SteerFlows(g.fds[0], 2, live); !errors.Is(err, unix.EINVAL) {
			t.Errorf("live %v: %v", live, err)
		}
	}
	var odd []int
	for i := 1; i < 4000; i += 2 {
		odd = append(odd, i)
	}
	if err := SteerFlows(g.fds[0], 4000, odd); !errors.Is(err, unix.E2BIG) {
		t.Errorf("2000 gaps: %v", err)
	}
	if counts := tally(g.sockets(), 2); counts[0] == 0 || counts[1] == 0 {
		t.Errorf("flows after that: %v", counts)
	}
}
