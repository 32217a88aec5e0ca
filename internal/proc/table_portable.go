//go:build unix

package proc

import (
	"fmt"
	"os"
	"sync"
)

// A portableTable has, for each process, one goroutine that waits for its end, and so a thread, and one that waits for
// its control socket in the runtime's poller.
//
// A process is signalled by os.Process, which never signals a pid that it has itself waited for. A pid that other code
// of the program has waited for can be given to a stranger before the waiting goroutine comes to know: that gap only
// pidfds close.
type portableTable struct {
	why     error // why pidfds cannot be used, where there is more to say than that the system has none
	closed  bool
	procs   map[*portableProcess]struct{} // not reaped
	readers sync.WaitGroup                // the goroutines at control sockets
	spawner spawner

	mu     sync.Mutex
	notify func(Note) // nil once the table is closed
}

func newPortableTable(notify func(Note), why error) *portableTable {
	return &portableTable{notify: notify, why: why, procs: make(map[*portableProcess]struct{})}
}

func (t *portableTable) Name() string {
	if t.why != nil {
		return fmt.Sprintf("portable (%v)", t.why)
	}
	return "portable"
}

func (t *portableTable) Start(id uint64, spec Spec) (Process, error) {
	if t.closed {
		return nil, errClosed()
	}
	child, err := t.spawner.spawn(spec, sysProcAttr(spec))
	if err != nil {
		return nil, err
	}
	p := &portableProcess{t: t, id: id, pid: child.pid, tied: child.tied, ended: make(chan struct{}), group: spec.Group, pins: spec.Group}
	p.process, err = os.FindProcess(child.pid)
	if err == nil && child.control >= 0 {
		p.control, err = newPortableControl(child.control)
	}
	if err != nil {
		p.discard()
		return nil, err
	}
	t.procs[p] = struct{}{}
	go p.wait()
	if p.control != nil {
		control := p.control
		t.readers.Go(func() { control.watch(func() { t.tell(Note{id, Readable}) }) })
	}
	return p, nil
}

// tell passes a note on. The lock makes sure that none comes once the table is closed.
func (t *portableTable) tell(note Note) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.notify != nil {
		t.notify(note)
	}
}

func (t *portableTable) Close() error {
	if t.closed {
		return nil
	}
	t.closed = true
	t.mu.Lock()
	t.notify = nil
	t.mu.Unlock()
	for p := range t.procs {
		if p.control != nil {
			p.control.stop()
		}
	}
	t.readers.Wait()
	t.spawner.close()
	return nil
}
