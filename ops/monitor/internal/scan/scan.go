// Package scan watches a directory of programs and service directories. It
// reports which of its names are such, and when a change of one has settled.
package scan

import (
	"context"
	"fmt"
	"time"
)

// A Kind is a kind of service.
type Kind uint8

const (
	Program Kind = iota + 1 // an executable file
	Service                 // a directory with an executable run
)

func (k Kind) String() string {
	switch k {
	case Program:
		return "program"
	case Service:
		return "service directory"
	}
	return fmt.Sprintf("kind %d", uint8(k))
}

// An Entry is a name in the directory.
type Entry struct {
	Name string
	Kind Kind // zero if the name is passed over
}

// An Op is a kind of change.
type Op uint8

const (
	Added      Op = iota + 1
	Changed       // the file of a Program is another one; never of a Service
	Removed       // also if a file is not executable any more
	PassedOver    // the name is neither a Program nor a Service, see Change.Reason
)

func (o Op) String() string {
	switch o {
	case Added:
		return "added"
	case Changed:
		return "changed"
	case Removed:
		return "removed"
	case PassedOver:
		return "passed over"
	}
	return fmt.Sprintf("op %d", uint8(o))
}

// A Change is the outcome of one save, move or removal.
type Change struct {
	Op     Op
	Entry  Entry
	Reason string // why it is passed over, or removed although the name is there
}

// Config configures Watch.
type Config struct {
	Dir    string        // absolute
	Settle time.Duration // how long nothing must happen to a name; zero means 300 ms
	Max    int           // services; zero means 4096

	// Enter, if not nil, is called before a directory is looked at for the first
	// time: at the start, and when another one has taken the name. If it returns an
	// error, that directory counts as gone, and Enter is called again with each scan.
	// Use it for a lock.
	Enter func() error

	// Rescan, if not nil, is called when a value from rescan has been received, and
	// the function that it returns, when the directory was scanned after that and f
	// has the changes that had settled.
	Rescan func() (scanned func())

	// Stalled, if not nil, is called when the directory has not answered for 5 s, by
	// another goroutine, and once more, with over, when it has. No change is noticed
	// meanwhile. One name whose disk does not answer does not count.
	Stalled func(since time.Time, over bool)

	// Report, if not nil, gets errors that Watch survives, such as a lack of
	// inotify watches.
	Report func(error)
}

const (
	defaultSettle = 300 * time.Millisecond
	defaultMax    = 4096

	// latest is the time after which a name that does not settle counts as it
	// is then.
	latest = 5 * time.Second

	// soon and late are the intervals of scans. The first applies while the
	// system does not notify of everything, see watcher.interval. The second
	// is for file systems that other machines change, and for a directory
	// above that is renamed.
	soon = 5 * time.Second
	late = time.Minute

	// patience is the time after which Config.Stalled is called.
	patience = 5 * time.Second

	// hangs is how long all looks that are made together wait for disks that hang, and
	// moment how long one more look waits then. A name without an answer is passed
	// over, or stays as it was, until the next scan.
	hangs  = 2 * time.Second
	moment = 50 * time.Millisecond
)

// Watch reports the services of a directory until ctx ends, whose error it then
// returns. The first call of f has all that is there, without waiting until it
// has settled. Later calls have at least one change. Changes are sorted by name;
// if a name becomes another service, its Removed is followed by Added. f is
// called by one goroutine, and delays later changes until it returns. A value
// from rescan looks at the directory at once.
//
// If the directory vanishes, all services are removed, and Watch waits for
// another one of that name.
func Watch(ctx context.Context, cfg Config, rescan <-chan struct{}, f func([]Change)) error {
	w := newWatcher(cfg)
	defer w.close()
	return w.run(ctx, rescan, f)
}
