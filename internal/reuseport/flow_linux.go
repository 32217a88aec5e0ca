package reuseport

import (
	"fmt"
	"math"
	"os"

	"golang.org/x/sys/unix"
)

// SteerFlows spreads the datagrams of a group of n sockets over the sockets with
// the indexes in live, in any order, until the next call; nil means all sockets.
// The socket fd may be any of the group. It is safe for concurrent use.
//
// A BPF program assigns each datagram by a hash of its source address and port.
// It computes the hash itself, because that of the kernel is 0 for some devices,
// and has a random part. A flow stays on its socket as long as n does not change
// and the socket is live: those of other sockets move, and return later.
//
// For the limits of a program see Steer. If live does not fit, or if the kernel
// does not support such programs, SteerFlows returns an error, and the kernel
// spreads the flows over all sockets, by its own hash.
func SteerFlows(fd, n int, live []int) error {
	program, err := assembleFlows(n, live)
	if err == nil {
		err = attachProgram(fd, program)
	}
	if err == nil {
		return nil
	}
	attachProgram(fd, hashProgram())
	return fmt.Errorf("steer flows to %d of %d sockets with %d instructions: %w", len(live), n, len(program), os.NewSyscallError("setsockopt", err))
}

// Addresses of a program relative to the network header: SKF_NET_OFF
// (linux/filter.h), which package unix does not define. In a program of a
// reuseport group, address 0 is that of the payload.
const (
	netOff   = math.MaxUint32 - 1<<20 + 1
	ip4Src   = netOff + 12
	ip6Src   = netOff + 8
	ip6Ports = netOff + 40
)

// Odd numbers with about as many ones as zeros, to multiply a hash by.
const (
	mix1 = 0x9e3779b1
	mix2 = 0x85ebca6b
	mix3 = 0xc2b2ae35
)

// assembleFlows returns a program that selects one of n sockets by a hash of the
// flow, and by a second one if the first selects a socket that is not live.
func assembleFlows(n int, live []int) ([]unix.SockFilter, error) {
	live = sorted(live)
	if n < 1 || len(live) > 0 && (live[0] < 0 || live[len(live)-1] >= n) {
		return nil, unix.EINVAL
	}
	code := append(hashFlow(),
		unix.SockFilter{Code: unix.BPF_ST}, // to M[0]
		unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(n)})
	var gaps []unix.SockFilter
	if runs, end := runsOf(live), 0; len(runs) > 0 {
		for _, r := range append(runs, run{first: n}) {
			if end < r.first {
				gaps = append(gaps, testGap(end, r.first)...)
			}
			end = r.first + r.len
		}
	}
	for i := range gaps {
		if gaps[i].Code == unix.BPF_JMP|unix.BPF_JA {
			gaps[i].K = uint32(len(gaps) - i) // behind the return after them
		}
	}
	code = append(append(code, gaps...), unix.SockFilter{Code: unix.BPF_RET | unix.BPF_A})
	if gaps == nil {
		return code, nil
	}
	code = append(code, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_MEM}) // from M[0]
	code = append(code, mixHash(mix3, 15)...)
	code = append(code, unix.SockFilter{Code: unix.BPF_ALU | unix.BPF_MOD | unix.BPF_K, K: uint32(len(live))})
	return append(code, selectIndex(runsOf(live))...), nil
}

// testGap returns code that returns the accumulator if it is less than first, goes
// on if it is at least end, and jumps to a place that is filled in later if it is
// between them.
func testGap(first, end int) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(first), Jt: 1},
		{Code: unix.BPF_RET | unix.BPF_A},
		{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, K: uint32(end), Jt: 1},
		{Code: unix.BPF_JMP | unix.BPF_JA},
	}
}

// hashFlow returns code that loads a hash of the source address and the ports. The
// header of IPv4 may have options. If that of IPv6 is followed by an extension
// header, the type and length of that count instead of the ports.
func hashFlow() []unix.SockFilter {
	load := func(size uint16, address uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: address}
	}
	mixIn := func(address uint32) []unix.SockFilter {
		return []unix.SockFilter{
			{Code: unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K, K: mix1},
			{Code: unix.BPF_MISC | unix.BPF_TAX},
			load(unix.BPF_W, address),
			{Code: unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X},
		}
	}
	ip4 := append([]unix.SockFilter{
		{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: netOff}, // X = length of the header
		{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_IND, K: netOff},
	}, mixIn(ip4Src)...)
	ip6 := []unix.SockFilter{load(unix.BPF_W, ip6Ports)}
	for word := range uint32(4) {
		ip6 = append(ip6, mixIn(ip6Src+4*word)...)
	}
	ip4 = append(ip4, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JA, K: uint32(len(ip6))})
	code := append([]unix.SockFilter{
		load(unix.BPF_B, netOff),
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: 4}, // the version
		{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: 6, Jt: uint8(len(ip4))},
	}, ip4...)
	code = append(code, ip6...)
	return append(append(code, mixHash(mix2, 16)...), mixHash(mix3, 13)...)
}

// mixHash returns code that spreads each bit of the accumulator over many.
func mixHash(factor, shift uint32) []unix.SockFilter {
	return []unix.SockFilter{
		{Code: unix.BPF_ALU | unix.BPF_MUL | unix.BPF_K, K: factor},
		{Code: unix.BPF_MISC | unix.BPF_TAX},
		{Code: unix.BPF_ALU | unix.BPF_RSH | unix.BPF_K, K: shift},
		{Code: unix.BPF_ALU | unix.BPF_XOR | unix.BPF_X},
	}
}
