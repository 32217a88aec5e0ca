package reuseport

import (
	"fmt"
	"math"
	"os"
	"slices"

	"golang.org/x/sys/unix"
)

// Steer spreads the new connections of a group over the sockets with the
// indexes in live, in any order, until the next call; nil means all sockets.
// The socket fd may be any of the group. A connection whose handshake has begun
// stays on its socket. Steer is safe for concurrent use.
//
// A BPF program assigns each connection by a random number. It cannot use the
// hash of the packet, which is 0 for all packets of a device that computes
// none: all connections would go to one socket (observed with a tun device).
// The choice holds for the connection, because the kernel finds the later
// packets of a handshake by their addresses. With SYN cookies the kernel keeps
// no state and chooses again, and any socket of the group accepts the
// acknowledgement (observed).
//
// The kernel accepts programs of up to 4,096 instructions that fit into
// net.core.optmem_max. A gap in live takes two or three: 1,000 slots of which
// every second one is missing take about 1,000 instructions. If live does not
// fit, or if the kernel does not support such programs, Steer returns an error
// and connections are spread over all sockets. A connection for a slot without
// a ready worker is then served by the adopter of its socket.
func Steer(fd int, live []int) error {
	program, err := assemble(live)
	if err == nil {
		err = attachProgram(fd, program)
	}
	if err == nil {
		return nil
	}
	attachProgram(fd, hashProgram())
	return fmt.Errorf("steer connections to %d sockets with %d instructions: %w", len(live), len(program), os.NewSyscallError("setsockopt", err))
}

func attachProgram(fd int, program []unix.SockFilter) error {
	if len(program) > unix.BPF_MAXINSNS {
		return unix.E2BIG
	}
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_REUSEPORT_CBPF,
		&unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

// hashProgram returns a program that selects a socket beyond the end of every
// group. The kernel then falls back to a hash of the addresses, as it does
// without a program.
func hashProgram() []unix.SockFilter {
	return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: math.MaxUint32}}
}

// skfAdRandom is the address at which a program reads a random number:
// SKF_AD_OFF + SKF_AD_RANDOM (linux/filter.h). Package unix does not define it.
const skfAdRandom = 0xfffff000 + 56

// A run is a range of consecutive indexes; before is the number of live indexes
// below it.
type run struct{ first, len, before int }

// assemble returns a program that returns each index in live with the same
// probability.
func assemble(live []int) ([]unix.SockFilter, error) {
	if len(live) == 0 {
		return hashProgram(), nil
	}
	live = sorted(live)
	if live[0] < 0 || live[len(live)-1] > math.MaxInt32 {
		return nil, unix.EINVAL
	}
	return append([]unix.SockFilter{
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: skfAdRandom},
		{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(live))},
	}, selectIndex(runsOf(live))...), nil
}

// sorted returns a copy of live in ascending order.
func sorted(live []int) []int {
	live = slices.Clone(live)
	slices.Sort(live)
	return slices.Compact(live)
}

// runsOf returns the runs in live, which is sorted.
func runsOf(live []int) (runs []run) {
	for n, i := range live {
		if n == 0 || live[n-1] != i-1 {
			runs = append(runs, run{first: i, before: n})
		}
		runs[len(runs)-1].len++
	}
	return runs
}

// selectIndex returns code that maps the accumulator, the position of an index
// among those of the runs, to the index. It is a binary tree of comparisons.
func selectIndex(runs []run) []unix.SockFilter {
	if len(runs) == 1 {
		return runs[0].selectIndex()
	}
	half := len(runs) / 2
	low, high := selectIndex(runs[:half]), selectIndex(runs[half:])
	jump := unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(runs[half].before)}
	code := make([]unix.SockFilter, 0, 2+len(low)+len(high))
	if len(low) <= math.MaxUint8 {
		jump.Jt = uint8(len(low))
		code = append(code, jump)
	} else { // a conditional jump spans at most 255 instructions
		jump.Jf = 1
		code = append(code, jump, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(low))})
	}
	return append(append(code, low...), high...)
}

func (r run) selectIndex() []unix.SockFilter {
	if r.len == 1 {
		return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: uint32(r.first)}}
	}
	ret := unix.SockFilter{Code: unix.BPF_RET | unix.BPF_A}
	if r.first == r.before {
		return []unix.SockFilter{ret}
	}
	return []unix.SockFilter{{Code: unix.BPF_ALU | unix.BPF_ADD | unix.BPF_K, K: uint32(r.first - r.before)}, ret}
}
