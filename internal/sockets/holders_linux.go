package sockets

import (
	"encoding/binary"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"github.com/prefork-go/prefork/internal/marker"
)

// holders returns the processes that have a socket bound to an address: workers
// without a manager, and whether there are others.
func holders(network, address string) (orphans []int, others bool) {
	inodes := boundTo(network, address)
	if len(inodes) == 0 {
		return nil, false
	}
	processes, _ := os.ReadDir("/proc")
	for _, p := range processes {
		pid, err := strconv.Atoi(p.Name())
		if err != nil || !holdsOne(p.Name(), inodes) {
			continue
		}
		if !marker.IsOrphan(pid) {
			return nil, true
		}
		orphans = append(orphans, pid)
	}
	return orphans, false
}

// holdsOne reports whether a process has one of the sockets.
func holdsOne(pid string, inodes []string) bool {
	dir := "/proc/" + pid + "/fd/"
	files, _ := os.ReadDir(dir)
	return slices.ContainsFunc(files, func(f os.DirEntry) bool {
		link, err := os.Readlink(dir + f.Name())
		inode, ok := strings.CutPrefix(link, "socket:[")
		return err == nil && ok && slices.Contains(inodes, strings.TrimSuffix(inode, "]"))
	})
}

// boundTo returns the inodes of the sockets that keep an address from being
// bound.
func boundTo(network, address string) (inodes []string) {
	if strings.HasPrefix(network, "unix") {
		path, _ := filepath.Abs(address)
		for f := range lines("/proc/net/unix") {
			// Num RefCount Protocol Flags Type St Inode Path
			if len(f) >= 8 && (f[7] == address || f[7] == path) {
				inodes = append(inodes, f[6])
			}
		}
		return inodes
	}
	kind := network[:3]
	wanted, err := resolve(kind, network, address)
	if err != nil {
		return nil
	}
	for _, name := range []string{kind, kind + "6"} {
		for f := range lines("/proc/net/" + name) {
			// sl local_address rem_address st tx:rx tr:when retrnsmt uid timeout inode
			if len(f) < 10 || kind == "tcp" && f[3] != "0A" {
				continue
			}
			if bound, ok := parseBound(f[1]); ok && overlap(bound, wanted) {
				inodes = append(inodes, f[9])
			}
		}
	}
	return inodes
}

// lines returns the fields of the lines of a table in /proc, after its heading.
func lines(name string) func(yield func([]string) bool) {
	return func(yield func([]string) bool) {
		table, _ := os.ReadFile(name)
		_, rest, _ := strings.Cut(string(table), "\n")
		for line := range strings.Lines(rest) {
			if !yield(strings.Fields(line)) {
				return
			}
		}
	}
}

func resolve(kind, network, address string) (netip.AddrPort, error) {
	if kind == "udp" {
		a, err := net.ResolveUDPAddr(network, address)
		if err != nil {
			return netip.AddrPort{}, err
		}
		return a.AddrPort(), nil
	}
	a, err := net.ResolveTCPAddr(network, address)
	if err != nil {
		return netip.AddrPort{}, err
	}
	return a.AddrPort(), nil
}

// parseBound parses an address such as 0100007F:1F90: words of four bytes, each
// printed as a number of the machine, and a port.
func parseBound(text string) (bound netip.AddrPort, ok bool) {
	host, port, _ := strings.Cut(text, ":")
	var b []byte
	for ; len(host) >= 8; host = host[8:] {
		word, err := strconv.ParseUint(host[:8], 16, 32)
		if err != nil {
			return bound, false
		}
		b = binary.NativeEndian.AppendUint32(b, uint32(word))
	}
	ip, ok := netip.AddrFromSlice(b)
	n, err := strconv.ParseUint(port, 16, 16)
	return netip.AddrPortFrom(ip.Unmap(), uint16(n)), ok && err == nil
}

// overlap reports whether two sockets cannot have these addresses.
func overlap(bound, wanted netip.AddrPort) bool {
	a, b := bound.Addr(), wanted.Addr().Unmap().WithZone("")
	return bound.Port() == wanted.Port() && (a == b || a.IsUnspecified() || b.IsUnspecified() || !b.IsValid())
}
