package launch

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	"github.com/prefork-go/prefork/internal/fd"
	"github.com/prefork-go/prefork/internal/proc"
)

// firstFD is the lowest descriptor of a Command above its standard streams.
const firstFD = 3

// exact is a descriptor that must have a certain number in a Command.
type exact struct {
	number int
	of     string // the field that asks for it
}

// exact returns the descriptors with certain numbers, sorted by these.
func (p *Plan) exact() (all []exact) {
	for n := range p.FilesAt {
		all = append(all, exact{n, "Spawn.FilesAt"})
	}
	for _, port := range p.Ports {
		if port.Number != 0 {
			all = append(all, exact{port.Number, "ListenConfig.FD"})
		}
	}
	if p.ReadyFD != 0 {
		all = append(all, exact{p.ReadyFD, "Readiness.FD"})
	}
	slices.SortFunc(all, func(a, b exact) int { return cmp.Or(a.number-b.number, strings.Compare(a.of, b.of)) })
	return all
}

// layOutCommand gives the descriptors with exact numbers those, and the other
// sockets the lowest that are left. It returns the numbers of the sockets.
func (p *Plan) layOutCommand(spec *proc.Spec) (sockets []int, err error) {
	all := p.exact()
	if err := p.checkExact(all); err != nil {
		return nil, err
	}
	for _, port := range p.Ports {
		number := port.Number
		if number == 0 {
			for slices.ContainsFunc(all, func(e exact) bool { return e.number == len(spec.Files) }) {
				spec.Files = append(spec.Files, closed)
			}
			number = len(spec.Files)
			spec.Files = append(spec.Files, uintptr(port.FD))
		}
		sockets = append(sockets, number)
	}
	for len(all) > 0 && len(spec.Files) <= all[len(all)-1].number {
		spec.Files = append(spec.Files, closed)
	}
	for i, port := range p.Ports {
		spec.Files[sockets[i]] = uintptr(port.FD)
	}
	for n, f := range p.FilesAt {
		if f == nil {
			continue
		}
		if spec.Files[n], err = fd.Raw(f); err != nil { // it is closed
			return nil, err
		}
	}
	spec.Control = p.ReadyFD
	return sockets, nil
}

// checkExact checks the numbers of descriptors that must have certain ones.
func (p *Plan) checkExact(all []exact) error {
	files := firstFD + len(p.Files)
	for i, e := range all {
		switch n := e.number; {
		case n < firstFD:
			return fmt.Errorf("descriptor %d of %s is a standard stream, or negative: use Spawn.Stdin, Stdout or Stderr", n, e.of)
		case i > 0 && n == all[i-1].number:
			return fmt.Errorf("descriptor %d is both one of %s and one of %s: use another number", n, all[i-1].of, e.of)
		case n < files:
			return fmt.Errorf("descriptor %d of %s is one of Spawn.Files, which have 3 to %d: use another number", n, e.of, files-1)
		case p.ListenFDs && e.of == "ListenConfig.FD":
			return fmt.Errorf("descriptor %d of %s cannot be combined with ListenFDs, which numbers the sockets from %d: leave out one of them", n, e.of, files)
		case p.ListenFDs && n < files+len(p.Ports):
			return fmt.Errorf("descriptor %d of %s is one of LISTEN_FDS, which have 3 to %d: use a higher number", n, e.of, files+len(p.Ports)-1)
		case n >= fd.Limit():
			return fmt.Errorf("descriptor %d of %s is not below RLIMIT_NOFILE, which is %d: use a lower number", n, e.of, fd.Limit())
		}
	}
	return nil
}

// portList returns the elements of SERVER_STARTER_PORT for sockets with these
// numbers.
func (p *Plan) portList(numbers []int) (ports []string) {
	for i, port := range p.Ports {
		ports = append(ports, port.Name+"="+strconv.Itoa(numbers[i]))
	}
	return ports
}

// isPort reports whether a descriptor is of a socket of Listen.
func (p *Plan) isPort(descriptor int) bool {
	return slices.ContainsFunc(p.Ports, func(port Port) bool { return fd.Same(port.FD, descriptor) })
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
