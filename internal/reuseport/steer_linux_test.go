package reuseport

import (
	"errors"
	"math"
	"math/rand/v2"
	"net"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// TestSteerAvoids checks that Steer takes effect immediately.
func TestSteerAvoids(t *testing.T) {
	g := newGroup(t, 4)
	for _, live := range [][]int{{0, 1, 3}, {2}, {3, 0}, {1, 2}} {
		g.steer(live...)
		for i, n := range g.spread(1000) {
			if (n > 0) != slices.Contains(live, i) {
				t.Errorf("steered to %v: socket %d got %d of 1000", live, i, n)
			}
		}
	}
}

// variation returns the coefficient of variation of the counts at the indexes
// in live. A random distribution has √((k−1)/n).
func variation(counts, live []int) float64 {
	sum, squares := 0.0, 0.0
	for _, i := range live {
		sum += float64(counts[i])
		squares += float64(counts[i]) * float64(counts[i])
	}
	mean := sum / float64(len(live))
	return math.Sqrt(squares/float64(len(live))-mean*mean) / mean
}

func upTo(n int) []int {
	all := make([]int, n)
	for i := range all {
		all[i] = i
	}
	return all
}

func TestEvenness(t *testing.T) {
	const n = 4000
	g := newGroup(t, 8)
	for _, test := range []struct{ steer, live []int }{
		{nil, upTo(8)}, // the kernel's own hash
		{upTo(8), upTo(8)},
		{[]int{0, 2, 3, 7}, []int{0, 2, 3, 7}},
		{[]int{1, 3, 5, 7}, []int{1, 3, 5, 7}},
		{[]int{6, 5, 5, 6}, []int{5, 6}},
	} {
		g.steer(test.steer...)
		counts := g.spread(n)
		got, random := variation(counts, test.live), math.Sqrt(float64(len(test.live)-1)/n)
		t.Logf("steered to %v: %v, variation %.3f, random %.3f", test.steer, counts, got, random)
		if got > 4*random { // once in about 15,000 runs with two sockets, and less often with more
			t.Errorf("steered to %v: variation %.3f, random %.3f", test.steer, got, random)
		}
	}
}

// interpret runs a program with a random number and counts the executed
// instructions.
func interpret(t *testing.T, program []unix.SockFilter, random uint32) (index uint32, steps int) {
	t.Helper()
	var a uint32
	for pc := 0; ; pc++ {
		in := program[pc]
		steps++
		switch in.Code {
		case unix.BPF_LD | unix.BPF_W | unix.BPF_ABS:
			a = random
		case unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K:
			a %= in.K
		case unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K:
			a += in.K
		case unix.BPF_JMP | unix.BPF_JA:
			pc += int(in.K)
		case unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K:
			if a >= in.K {
				pc += int(in.Jt)
			} else {
				pc += int(in.Jf)
			}
		case unix.BPF_RET | unix.BPF_K:
			return in.K, steps
		case unix.BPF_RET | unix.BPF_A:
			return a, steps
		default:
			t.Fatalf("instruction %#v", in)
		}
	}
}

// TestAssemble checks that each index in live is chosen by one of as many
// consecutive numbers.
func TestAssemble(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	randomIndexes := func(n int) (live []int) {
		for i := range 1 + rng.IntN(1+n*10) {
			if rng.IntN(1+n%7) == 0 {
				live = append(live, i)
			}
		}
		return live
	}
	for n := range 300 {
		live := randomIndexes(n)
		if live == nil {
			continue
		}
		shuffled := slices.Clone(live)
		rng.Shuffle(len(live), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
		program, err := assemble(append(shuffled, live[0]))
		if err != nil {
			t.Fatal(err)
		}
		for k, want := range live {
			got, steps := interpret(t, program, uint32(k+5*len(live)))
			if int(got) != want || steps > 40 {
				t.Fatalf("%v: number %d gives %d after %d instructions, want %d", live, k, got, steps, want)
			}
		}
	}
	if _, err := assemble([]int{3, -1}); err != unix.EINVAL {
		t.Error(err)
	}
}

// TestProgramSize checks that the kernel accepts the programs that large pools
// need, and that all sockets stay in use if it does not accept one.
func TestProgramSize(t *testing.T) {
	g := newGroup(t, 4)
	everySecond := func(n int) (live []int) {
		for i := 0; i < n; i += 2 {
			live = append(live, i)
		}
		return live
	}
	for _, test := range []struct {
		name string
		live []int
		max  int
	}{
		{"all of 1,000", upTo(1000), 3},
		{"one of 1,000 missing", slices.Delete(upTo(1000), 400, 401), 6},
		{"every second of 1,000", everySecond(1000), 1100},
	} {
		program, err := assemble(test.live)
		if err != nil || len(program) > test.max {
			t.Errorf("%s: %d instructions, %v", test.name, len(program), err)
		}
		t.Logf("%s: %d instructions", test.name, len(program))
		if err := Steer(g.fds[0], test.live); err != nil {
			t.Error(err)
		}
	}
	g.steer(2)
	if err := Steer(g.fds[0], everySecond(10_000)); !errors.Is(err, unix.E2BIG) {
		t.Errorf("5,000 gaps: %v", err)
	}
	for i, n := range g.spread(400) {
		if n == 0 {
			t.Errorf("socket %d gets nothing", i)
		}
	}
	// For an index beyond the group the kernel uses its hash.
	g.steer(7)
	for i, n := range g.spread(400) {
		if n == 0 {
			t.Errorf("socket %d gets nothing", i)
		}
	}
}

func TestSteerErrors(t *testing.T) {
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	ln, err := lc.Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	conn, err := ln.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := control(conn, func(fd int) error { return Steer(fd, []int{0, 1}) }); !errors.Is(err, unix.EINVAL) {
		t.Errorf("a socket without a group: %v", err)
	}
	if err := Steer(-1, []int{0}); !errors.Is(err, unix.EBADF) {
		t.Error(err)
	}
	g := newGroup(t, 2)
	if err := Steer(g.fds[0], []int{-1, 1}); !errors.Is(err, unix.EINVAL) {
		t.Error(err)
	}
}
