package launch

import (
	"slices"

	"github.com/prefork-go/prefork/internal/binary"
)

// Generation has the parameters with which workers of one generation start.
type Generation struct {
	Passed *Passed
	Exe    *binary.Binary // nil for the file that this process runs
}

// Generations has the generations of which workers may still be spawned, and owns
// their files. The zero value is ready to use.
type Generations struct {
	known map[int]Generation
	next  *binary.Binary // of the next generation; nil for the file that this process runs
}

// Get returns a generation, the zero Generation if it is not known.
func (g *Generations) Get(n int) Generation { return g.known[n] }

// Add adds a generation that runs the next file.
func (g *Generations) Add(n int, passed *Passed) {
	if g.known == nil {
		g.known = make(map[int]Generation)
	}
	g.known[n] = Generation{passed, g.next}
}

// OpenNext opens the file on disk for the next generation, or returns the present
// one if it is the same. It counts once SetNext was called; Drop closes it instead.
func (g *Generations) OpenNext(path string) (*binary.Binary, error) {
	exe, err := binary.Open(path)
	if err == nil && exe.Same(g.next) {
		exe.Close()
		return g.next, nil
	}
	return exe, err
}

// SetNext makes a file of OpenNext that of the next generation; nil means the file
// that this process runs.
func (g *Generations) SetNext(exe *binary.Binary) { g.next = exe }

// Drop closes a file of OpenNext that no generation will run. It may be nil.
func (g *Generations) Drop(exe *binary.Binary) {
	if exe != nil && exe != g.next {
		exe.Close()
	}
}

// FallBack makes the file of an older generation the next one.
func (g *Generations) FallBack(n int) { g.next = g.known[n].Exe }

// Forget closes what generations have that are no longer spawned: all but the
// newest, and the one to which the manager falls back if that fails.
func (g *Generations) Forget(newest, fallback int) {
	kept := []Generation{g.known[newest], g.known[fallback]}
	for n, old := range g.known {
		if n == newest || n == fallback {
			continue
		}
		delete(g.known, n)
		if !slices.ContainsFunc(kept, func(k Generation) bool { return k.Passed == old.Passed }) {
			old.Passed.Close()
		}
		if old.Exe != nil && !slices.ContainsFunc(kept, func(k Generation) bool { return k.Exe == old.Exe }) {
			old.Exe.Close()
		}
	}
}

// Close closes everything.
func (g *Generations) Close() {
	for _, old := range g.known {
		old.Passed.Close()
		if old.Exe != nil {
			old.Exe.Close()
		}
	}
	clear(g.known)
	if g.next != nil {
		g.next.Close()
	}
}
