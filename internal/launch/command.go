package launch

import (
	"fmt"
	"maps"
	"slices"
	"strconv"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/proc"
)

// firstFD is the lowest descriptor of a Command above its standard streams.
const firstFD = 3

// exact returns the numbers that certain descriptors of a Command must have,
// sorted.
func (p *Plan) exact() []int {
	numbers := slices.Collect(maps.Keys(p.FilesAt))
	if p.ReadyFD != 0 {
		numbers = append(numbers, p.ReadyFD)
	}
	slices.Sort(numbers)
	return numbers
}

// layOutCommand gives the descriptors with exact numbers those, and the sockets
// the lowest others. It returns the numbers of the sockets.
func (p *Plan) layOutCommand(spec *proc.Spec) (sockets []int, err error) {
	exact := p.exact()
	if err := p.checkExact(exact); err != nil {
		return nil, err
	}
	for _, descriptor := range p.PortFDs {
		for slices.Contains(exact, len(spec.Files)) {
			spec.Files = append(spec.Files, closed)
		}
		sockets = append(sockets, len(spec.Files))
		spec.Files = append(spec.Files, uintptr(descriptor))
	}
	for _, n := range exact {
		for len(spec.Files) <= n {
			spec.Files = append(spec.Files, closed)
		}
		if f := p.FilesAt[n]; f != nil {
			if spec.Files[n], err = fd.Raw(f); err != nil { // it is closed
				return nil, err
			}
		}
	}
	spec.Control = p.ReadyFD
	return sockets, nil
}

// checkExact checks the numbers of descriptors that must have certain ones.
func (p *Plan) checkExact(exact []int) error {
	files := firstFD + len(p.Files)
	for i, n := range exact {
		switch {
		case n < firstFD:
			return fmt.Errorf("descriptor %d is a standard stream, or negative: use Spawn.Stdin, Stdout or Stderr", n)
		case i > 0 && n == exact[i-1]:
			return fmt.Errorf("descriptor %d is Readiness.FD: use another number in Spawn.FilesAt", n)
		case n < files:
			return fmt.Errorf("descriptor %d is one of Spawn.Files, which have 3 to %d: use another number", n, files-1)
		case p.ListenFDs && n < files+len(p.PortFDs):
			return fmt.Errorf("descriptor %d is one of LISTEN_FDS, which have 3 to %d: use a higher number", n, files+len(p.PortFDs)-1)
		case n >= fd.Limit():
			return fmt.Errorf("descriptor %d is not below RLIMIT_NOFILE, which is %d: use a lower number", n, fd.Limit())
		}
	}
	return nil
}

// portList returns the elements of SERVER_STARTER_PORT for sockets with these
// numbers.
func (p *Plan) portList(numbers []int) (ports []string) {
	for i, name := range p.Ports {
		ports = append(ports, name+"="+strconv.Itoa(numbers[i]))
	}
	return ports
}

// isPort reports whether a descriptor is of a socket of Listen.
func (p *Plan) isPort(descriptor int) bool {
	return slices.ContainsFunc(p.PortFDs, func(port int) bool { return fd.Same(port, descriptor) })
}

// blockFiles puts the files of a Command into blocking mode: a program that writes
// to a pipe fast would lose data by EAGAIN. File.Fd does that only for files which
// package os has made non-blocking. It leaves out the sockets of Listen, which were
// blocking before the first worker: those that run may have made them non-blocking
// since, and an event loop, as in node or Go, hangs in an accept that blocks.
func (p *Plan) blockFiles() error {
	all := slices.Concat(p.Files, p.Streams[:], slices.Collect(maps.Values(p.FilesAt)))
	for _, f := range all {
		if f == nil {
			continue
		}
		raw, err := fd.Raw(f)
		if err == nil && !p.isPort(int(raw)) {
			err = fd.SetBlocking(int(raw), true)
		}
		if err != nil {
			return fmt.Errorf("cannot put %s into blocking mode: %w", f.Name(), err)
		}
	}
	return nil
}
