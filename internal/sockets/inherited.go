package sockets

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"syscall"

	"github.com/prefork-go/prefork/internal/activation"
	"github.com/prefork-go/prefork/internal/marker"
	"github.com/prefork-go/prefork/internal/wire"
)

// ErrNotInherited is wrapped by errors that list the sockets this process was
// started with, when none of them fits the request.
var ErrNotInherited = errors.New("no such socket was inherited")

// Inherited holds the sockets that this process was started with: from the
// manager that started it, by its marker, and from start_server or systemd.
// All Managers of a program share it. It is safe for concurrent use.
type Inherited struct {
	mu      sync.Mutex
	sockets []marker.Socket // FD is -1 once a call has taken the socket
	own     map[int]*ownSocket
	shared  []syscall.RawConn  // the sockets of a worker that others share
	send    func(wire.Message) // of a worker, to its manager

	activationRead bool
	activated      bool                 // the process was started with sockets
	byStarter      bool                 // start_server started the process, with or without sockets
	given          []*activation.Socket // all of them
	left           []*activation.Socket // those that no call has taken
	misaddressed   string               // what systemd gave to another process
	activationErr  error
	begun, sets    int // the Sets whose first generation has begun, and all Sets
}

// NewInherited returns the sockets of a process whose marker names the given
// ones. A worker reports to its manager by send.
func NewInherited(sockets []marker.Socket, send func(wire.Message)) *Inherited {
	return &Inherited{sockets: sockets, send: send}
}

// take returns the first socket with this network and address that no call has
// taken yet, and its index.
func (in *Inherited) take(network, address string, fits func(marker.Socket) bool) (i int, got marker.Socket, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var found []int
	var list []string
	for i := range in.sockets {
		s := &in.sockets[i]
		if s.Network == network && s.Address == address && s.FD >= 0 && fits(*s) {
			found = append(found, i)
		}
		taken := ""
		if s.FD < 0 {
			taken = " (taken)"
		}
		list = append(list, s.Network+" "+s.Address+taken)
	}
	if found != nil {
		i = in.fromHere(found)
		got, in.sockets[i].FD = in.sockets[i], -1
		return i, got, nil
	}
	return 0, got, fmt.Errorf("%w (%s): a worker inherits the sockets for which the manager called Listen with the same network and address before Start",
		ErrNotInherited, listOf(list))
}

// fromHere returns the one of several equal sockets that the manager asked for
// at the place in the program at which this call was made, else the first.
func (in *Inherited) fromHere(found []int) int {
	if len(found) == 1 {
		return found[0]
	}
	site := callSite()
	at := slices.IndexFunc(found, func(i int) bool { return in.sockets[i].Site == site })
	if at < 0 { // the same call, reached in another way
		at = slices.IndexFunc(found, func(i int) bool { return nearestSite(in.sockets[i].Site) == nearestSite(site) })
	}
	return found[max(0, at)]
}

// Unused returns the indices of up to limit sockets that no call has asked for.
func (in *Inherited) Unused(limit int) (unused []int) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i, s := range in.sockets {
		if s.FD >= 0 && len(unused) < limit {
			unused = append(unused, i)
		}
	}
	return unused
}

// fromPredecessor takes the socket of the predecessor for a call of Listen
// (marker.Shared) or ListenPerWorker (0): the one with this network and address,
// or else the one that is bound to them in other words. A call of the same kind
// is preferred. One ListenPerWorker call of the predecessor has a socket for each
// slot.
func (in *Inherited) fromPredecessor(network, address string, kind int) (found []marker.Socket) {
	kinds := []int{marker.Shared, marker.FellBack, 0}
	if kind >= 0 {
		kinds = []int{0, marker.FellBack, marker.Shared}
	}
	for _, kind := range kinds {
		if i, s, err := in.take(network, address, withSlot(kind)); err == nil {
			return in.wholeGroup(i, s)
		}
	}
	if i, s := in.takeBound(network, address); i >= 0 {
		return in.wholeGroup(i, s)
	}
	return nil
}

// takeBound takes the socket that is bound to an address in other words. It
// returns -1 if there is none.
func (in *Inherited) takeBound(network, address string) (i int, got marker.Socket) {
	in.mu.Lock()
	defer in.mu.Unlock()
	var all []*activation.Socket
	var index []int
	for i, s := range in.sockets {
		if s.FD >= 0 && s.Slot <= 0 {
			bound := activation.Inspect(s.FD)
			all, index = append(all, &bound), append(index, i)
		}
	}
	best, err := activation.MatchBound(all, network, address)
	if best == nil || err != nil { // the bind that follows has the same error
		return -1, got
	}
	i = index[slices.Index(all, best)]
	got, in.sockets[i].FD = in.sockets[i], -1
	return i, got
}

// wholeGroup returns s and takes the sockets of the other slots, which follow that
// of slot 0.
func (in *Inherited) wholeGroup(first int, s marker.Socket) []marker.Socket {
	all := []marker.Socket{s}
	if s.Slot != 0 {
		return all
	}
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := first + 1; i < len(in.sockets); i++ {
		next := &in.sockets[i]
		if next.Network != s.Network || next.Address != s.Address || next.Slot != len(all) || next.FD < 0 {
			break
		}
		all = append(all, *next)
		next.FD = -1
	}
	return all
}

// takeUnclaimed takes the sockets that no call has asked for.
func (in *Inherited) takeUnclaimed() (unclaimed []marker.Socket) {
	in.mu.Lock()
	defer in.mu.Unlock()
	for i := range in.sockets {
		if s := &in.sockets[i]; s.FD >= 0 {
			unclaimed = append(unclaimed, *s)
			s.FD = -1
		}
	}
	return unclaimed
}

// ReadActivation reads the sockets that start_server or systemd passed to this
// process, once. After it, processes that the program starts do not inherit
// them.
func (in *Inherited) ReadActivation() {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.activationRead {
		return
	}
	in.activationRead = true
	in.byStarter = os.Getenv(activation.StarterEnv) != "" || os.Getenv(activation.StarterGenerationEnv) != ""
	all, err := activation.Sockets()
	in.activationErr = err
	for i := range all {
		in.given = append(in.given, &all[i])
	}
	in.left = slices.Clone(in.given)
	in.misaddressed = activation.Misaddressed()
	in.activated = len(all) > 0
}

// ByStarter reports whether start_server started this process. It is false
// before ReadActivation.
func (in *Inherited) ByStarter() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.byStarter
}

// isActivated reports whether start_server or systemd passed sockets to this
// process.
func (in *Inherited) isActivated() bool {
	in.mu.Lock()
	defer in.mu.Unlock()
	return in.activated
}

// takeActivated takes a socket from start_server or systemd: one whose address
// fits, or the only one of the network. Then other describes it. It returns
// false if the process was started without any.
func (in *Inherited) takeActivated(network, address string) (fd int, ok bool, other string, err error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.activationErr != nil || !in.activated {
		return -1, false, "", in.activationErr
	}
	g, err := activation.Match(in.left, network, address)
	if err != nil {
		return -1, false, "", err
	}
	if sole := activation.Sole(in.given, network); g == nil && sole != nil && slices.Contains(in.left, sole) {
		g, other = sole, sole.String()
	}
	if g != nil {
		in.left = slices.DeleteFunc(in.left, func(other *activation.Socket) bool { return other == g })
		activation.ClearEnv()
		return g.FD, true, other, nil
	}
	var list []string
	for _, g := range in.left {
		list = append(list, g.String())
	}
	return -1, false, "", fmt.Errorf("%w (%s): start the program with such a socket, or listen on one of these", ErrNotInherited, listOf(list))
}

// addSet notes a Set that takes sockets.
func (in *Inherited) addSet() {
	in.mu.Lock()
	defer in.mu.Unlock()
	in.sets++
}

// begin notes that the first generation of a Set has begun. After the last one it
// returns descriptions of the sockets from start_server or systemd that no call
// has asked for.
func (in *Inherited) begin() (unclaimed []string) {
	in.mu.Lock()
	defer in.mu.Unlock()
	if in.begun++; in.begun != in.sets {
		return nil
	}
	for _, g := range in.left {
		unclaimed = append(unclaimed, g.String())
	}
	return unclaimed
}

// explain adds to the error of a bind that systemd gave the sockets of this
// program to another process, or that the predecessor has the address.
func (in *Inherited) explain(err error) error {
	in.mu.Lock()
	defer in.mu.Unlock()
	switch {
	case err == nil:
		return nil
	case in.misaddressed != "":
		return fmt.Errorf("%w (%s)", err, in.misaddressed)
	case !errors.Is(err, syscall.EADDRINUSE):
		return err
	}
	var list []string
	for _, s := range in.sockets {
		if s.FD >= 0 && s.Slot <= 0 {
			list = append(list, s.Network+" "+s.Address)
		}
	}
	if list == nil {
		return err
	}
	return fmt.Errorf("%w (the previous manager has %s: an upgrade cannot bind an address again on other hosts; stop the program and start it)", err, listOf(list))
}

func listOf(list []string) string {
	if list == nil {
		return "none is left"
	}
	return strings.Join(list, ", ")
}

// perWorker reports whether a socket belongs to one slot.
func perWorker(s marker.Socket) bool { return s.Slot >= 0 || s.Slot == marker.Awaited }

// withSlot selects sockets by their Slot, which is a slot or one of
// marker.Shared, marker.FellBack and marker.Awaited.
func withSlot(slot int) func(marker.Socket) bool {
	return func(s marker.Socket) bool { return s.Slot == slot }
}

// wrapFD makes a listener or connection of a descriptor, and closes fd.
func wrapFD[T closer](fd int, name string, wrap func(*os.File) (T, error)) (s T, err error) {
	f := os.NewFile(uintptr(fd), name)
	defer f.Close()
	return wrap(f) // duplicates the descriptor, close-on-exec
}
