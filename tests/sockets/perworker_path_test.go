//go:build linux

package sockets_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/internal/testprog"
	"github.com/prefork-go/prefork/preforktest"
)

func init() { preforktest.Register("perworkerpath", perWorkerPath) }

// A path is a network between a client and a server of one kernel: a tun device
// that returns each packet with the two addresses swapped, which changes no
// checksum. A packet sent to the address there arrives from there.
type path struct {
	tun   *os.File
	port  atomic.Int32 // the server's
	delay time.Duration
	late  chan packet

	mu   sync.Mutex
	shut bool // packets of clients after their SYN are held
	held [][]byte
}

type packet struct {
	due  time.Time
	data []byte
}

const here, there = "10.99.0.1", "10.99.0.2"

// perWorkerPath is a perWorker in a network namespace with a client in its
// manager. On "dial N" the client opens N connections and writes requests;
// "open" releases the held packets and prints the number of answers. The first
// argument is the delay of the path in each direction. If it is 0, the path
// holds packets after a SYN.
func perWorkerPath() {
	delay, _ := time.ParseDuration(os.Args[1])
	os.Args = append(os.Args[:1], os.Args[2:]...)
	if prefork.IsWorker() {
		perWorker()
		return
	}
	p := &path{delay: delay, late: make(chan packet, 10_000), shut: delay == 0}
	var err error
	if p.tun, err = newTun(); err != nil {
		testprog.Print("no tun: %v", err)
		os.Exit(0)
	}
	go p.carry()
	go p.deliver()
	var wg sync.WaitGroup
	var answered atomic.Int32
	perWorkerThat(map[string]func(string){
		"dial": func(rest string) {
			count, port, _ := cut(rest)
			p.port.Store(int32(port))
			for range count {
				wg.Go(func() {
					if err := request(port); err != nil {
						testprog.Print("lost: %v", err)
						return
					}
					answered.Add(1)
				})
			}
		},
		"open": func(string) {
			p.open()
			wg.Wait()
			testprog.Print("answered %d", answered.Load())
		},
	})
}

func cut(s string) (a, b int, err error) {
	_, err = fmt.Sscan(s, &a, &b)
	return a, b, err
}

func request(port int) error {
	conn, err := net.DialTimeout("tcp4", net.JoinHostPort(there, strconv.Itoa(port)), 20*time.Second)
	if err != nil {
		return err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write([]byte("?")); err != nil {
		return err
	}
	testprog.Print("sent")
	data, err := io.ReadAll(conn)
	if err == nil && len(data) == 0 {
		err = io.ErrUnexpectedEOF
	}
	return err
}

// newTun creates a tun device with the address here.
func newTun() (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	ifr, err := unix.NewIfreq("tun0")
	if err != nil {
		return nil, err
	}
	s, err := unix.Socket(unix.AF_INET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(s)
	ifr.SetUint16(unix.IFF_TUN | unix.IFF_NO_PI)
	err = unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr)
	for _, step := range []struct {
		req  uint
		addr string
	}{{unix.SIOCSIFADDR, here}, {unix.SIOCSIFNETMASK, "255.255.255.0"}} {
		ifr.SetInet4Addr(net.ParseIP(step.addr).To4())
		err = errors.Join(err, unix.IoctlIfreq(s, step.req, ifr))
	}
	ifr.SetUint16(unix.IFF_UP | unix.IFF_RUNNING)
	err = errors.Join(err, unix.IoctlIfreq(s, unix.SIOCSIFFLAGS, ifr))
	return os.NewFile(uintptr(fd), "tun"), err
}

// carry returns packets to the kernel.
func (p *path) carry() {
	for {
		buf := make([]byte, 2000)
		n, err := p.tun.Read(buf)
		if err != nil {
			log.Fatal(err)
		}
		data := buf[:n]
		if n < 40 || data[0] != 0x45 || data[9] != unix.IPPROTO_TCP {
			continue
		}
		src, dst := [4]byte(data[12:16]), [4]byte(data[16:20])
		copy(data[12:], dst[:])
		copy(data[16:], src[:])
		const syn = 2
		toServer := binary.BigEndian.Uint16(data[22:]) == uint16(p.port.Load())
		if toServer && data[33]&syn == 0 && p.hold(data) {
			continue
		}
		p.late <- packet{time.Now().Add(p.delay), data}
	}
}

func (p *path) hold(data []byte) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.shut {
		p.held = append(p.held, data)
	}
	return p.shut
}

func (p *path) open() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, data := range p.held {
		p.late <- packet{time.Now(), data}
	}
	p.shut, p.held = false, nil
}

// deliver writes packets when they are due.
func (p *path) deliver() {
	for next := range p.late {
		time.Sleep(time.Until(next.due))
		p.tun.Write(next.data)
	}
}

// startPath starts a perWorkerPath.
func startPath(t *testing.T, delay string, n int, args ...string) *fleet {
	t.Helper()
	if os.Getuid() != 0 {
		preforktest.Skipf(t, "a network namespace needs root")
	}
	f := newFleet(t, n, args...)
	f.Program = preforktest.New(t, "perworkerpath", append([]string{delay, "on=tcp " + here + ":0", "dir=" + f.dir}, args...)...)
	f.Cmd.Stdin = f.stdin
	f.Cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWNET}
	f.Start()
	if got := f.Expect(`^(no tun: .*|on \S+ (\S+) per worker.*)$`); got[2] == "" {
		preforktest.Skipf(t, "%v", got[1])
	} else {
		f.addrs = append(f.addrs, got[2])
	}
	return f
}

func (f *fleet) dial(n int) {
	f.t.Helper()
	_, port, _ := net.SplitHostPort(f.addrs[0])
	f.command(fmt.Sprintf("dial %d %s", n, port))
}

// changes are changes to the workers of a pool of 8 while connections are in
// progress.
var changes = map[string]func(f *fleet, pids map[int]int){
	"reload": func(f *fleet, _ map[int]int) {
		f.Signal(hup)
		f.ready(8, 2)
	},
	"rolling": func(f *fleet, _ map[int]int) {
		f.Signal(usr1)
		f.ready(8, 2)
	},
	"shrink": func(f *fleet, _ map[int]int) {
		f.command("max 2")
		f.ExpectN(6, `^gone [2-7]`)
	},
	"crash": func(f *fleet, pids map[int]int) {
		for slot := range 7 {
			syscall.Kill(pids[slot], syscall.SIGKILL)
		}
		f.ExpectN(7, `^delay [0-6]`)
	},
}

// Slots lose their workers while handshakes are half done: the client's part is
// still in flight.
func TestHalfDoneHandshakes(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, listen string) {
				f := startPath(t, "0", 8, listen, "respawn=1h")
				f.open()
				pids := f.ready(8, 1)
				f.dial(100)
				f.ExpectN(100, `^sent$`)
				if n := len(f.sockets("03")); n != 100 { // SYN_RECV
					t.Errorf("%d handshakes are half done, want 100", n)
				}
				change(f, pids)
				if n := len(f.sockets("03")); n != 100 {
					t.Errorf("%d handshakes are half done, want 100", n)
				}
				f.command("open")
				f.wantAnswered(100)
				f.end()
			})
		})
	}
}

// The same on a path of 100 ms in each direction, with connections in all
// stages.
func TestConnectionsOnALongPath(t *testing.T) {
	for name, change := range changes {
		t.Run(name, func(t *testing.T) {
			eachMode(t, func(t *testing.T, listen string) {
				f := startPath(t, "100ms", 8, listen, "respawn=1h")
				if name != "crash" { // a killed worker loses its accepted connections
					f.open()
				}
				pids := f.ready(8, 1)
				f.dial(50)
				f.ExpectN(50, `^sent$`)
				f.dial(50)
				change(f, pids)
				f.open()
				f.command("open")
				f.wantAnswered(100)
				f.end()
			})
		})
	}
}

func (f *fleet) wantAnswered(n int) {
	f.t.Helper()
	if got := f.Expect(`^answered (\d+)$`); got[1] != strconv.Itoa(n) {
		f.t.Errorf("%s of %d", got[0], n)
		for _, line := range f.Lines() {
			if len(line) > 5 && line[:5] == "lost:" {
				f.t.Log(line)
			}
		}
	}
}
