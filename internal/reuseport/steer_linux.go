package reuseport

import (
	"fmt"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Steer spreads the new connections of the group that the socket fd belongs to over the sockets with the indexes in live,
// whose order does not matter, until it is called again; nil spreads them over all. Connections that are on their way
// stay where their handshake began. Manager, any goroutine.
//
// Each connection is thrown by a random number. The hash that came with its packet would not do: it is 0 for all packets
// of a device that computes none, and all connections would go to one socket (observed with a tun device). The throw holds
// for the connection, since the kernel finds the later packets of a handshake by their addresses; with SYN cookies, where
// it keeps nothing, it throws again, and any socket of the group takes the answer (observed).
//
// The kernel takes programs of 4,096 instructions, and those that fit net.core.optmem_max. A gap in live costs two or
// three: 1,000 slots with every second one gone need about 1,000. For a live that does not fit, and on a kernel without
// such programs, there is an error, and connections are spread over all sockets: what then goes to a socket without a
// worker of its own is for its keeper to serve.
func Steer(fd int, live []int) error {
	program, err := assemble(live)
	if err == nil {
		err = attach(fd, program)
	}
	if err == nil {
		return nil
	}
	attach(fd, everywhere())
	return fmt.Errorf("steer connections to %d sockets by %d instructions: %w", len(live), len(program), os.NewSyscallError("setsockopt", err))
}

func attach(fd int, program []unix.SockFilter) error {
	if len(program) > unix.BPF_MAXINSNS {
		return unix.E2BIG
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// everywhere names a socket that no group has. The kernel then does what it does without a program: it spreads by a hash
// of the addresses.
func everywhere() []unix.SockFilter {
	return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: math.MaxUint32}}
}

// random is where a program reads a random number: SKF_AD_OFF + SKF_AD_RANDOM (linux/filter.h), which x/sys does not name.
const random = 0xfffff000 + 56

// A run is a range of indexes without a gap; before says how many indexes come before it.
type run struct{ first, len, before int }

// assemble makes the program that returns one of the indexes in live, each as often as the others.
func assemble(live []int) ([]unix.SockFilter, error) {
	if len(live) == 0 {
		return everywhere(), nil
	}
	live = slices.Clone(live)
	slices.Sort(live)
	live = slices.Compact(live)
	if live[0] < 0 || live[len(live)-1] > math.MaxInt32 {
		return nil, unix.EINVAL
	}
	var runs []run
	for n, i := range live {
		if n == 0 || live[n-1] != i-1 {
			runs = append(runs, run{first: i, before: n})
		}
		runs[len(runs)-1].len++
	}
	return append([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: random},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(live))},
	}, choose(runs)...), nil
}

// choose turns the accumulator, which counts through all indexes of the runs, into the index: a tree of comparisons.
func choose(runs []run) []unix.SockFilter {
	if len(runs) == 1 {
		return runs[0].choose()
	}
	half := len(runs) / 2
	low, high := choose(runs[:half]), choose(runs[half:])
	jump := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(runs[half].before)}
	code := make([]unix.SockFilter, 0, 2+len(low)+len(high))
	if len(low) <= math.MaxUint8 {
		jump.Jt = uint8(len(low))
		code = append(code, jump)
	} else { // a comparison cannot jump so far
		jump.Jf = 1
		code = append(code, jump, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(low))})
	}
	return append(append(code, low...), high...)
}

func (r run) choose() []unix.SockFilter {
	if r.len == 1 {
		return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: uint32(r.first)}}
	}
	ret := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_A}
	if r.first == r.before {
		return []unix.SockFilter{ret}
	}
	return []unix.SockFilter{{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K, K: uint32(r.first - r.before)}, ret}
}
