//go:build unix

package proc

import (
	"fmt"
	"os"
	"sync"
)

// A portableTable has two goroutines for each process. One waits for its exit
// and occupies a thread. The other waits for its control socket in the
// runtime's poller.
//
// os.Process never signals a pid that it has waited for itself. If other code
// of the program waited for the pid, the kernel can give it to an unrelated
// process before the waiting goroutine returns. Only pidfds close that gap.
type portableTable struct {
	why     error          // why pidfds are refused; nil if the system has none
	readers sync.WaitGroup // goroutines that wait for control sockets
	spawner spawner

	mu     sync.Mutex
	procs  map[*portableProcess]struct{} // that have not been reaped
	closed bool
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
	t.mu.Lock()
	closed := t.closed
	t.mu.Unlock()
	if closed {
		return nil, errClosed()
	}
	child, err := t.spawner.spawn(spec, sysProcAttr(spec))
	if err != nil {
		return nil, err
	}
	p := &portableProcess{t: t, id: id, pid: child.pid, tied: child.tied, exited: make(chan struct{}), group: spec.Group, holdsPid: spec.Group}
	p.process, err = os.FindProcess(child.pid)
	if err == nil && child.control >= 0 {
		p.control, err = newPortableControl(child.control)
	}
	if err != nil {
		p.discard()
		return nil, err
	}
	t.mu.Lock()
	t.procs[p] = struct{}{}
	t.mu.Unlock()
	go p.wait()
	if p.control != nil {
		control := p.control
		t.readers.Go(func() { control.watch(func() { t.send(Note{id, Readable}) }) })
	}
	return p, nil
}

// send calls notify. The lock ensures that no note follows Close.
func (t *portableTable) send(note Note) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.notify != nil {
		t.notify(note)
	}
}

func (t *portableTable) Close() error {
	t.mu.Lock()
	if t.closed {
		t.mu.Unlock()
		return nil
	}
	t.closed, t.notify = true, nil
	for p := range t.procs {
		if p.control != nil {
			p.control.stop()
		}
	}
	t.mu.Unlock()
	t.readers.Wait()
	t.spawner.close()
	return nil
}
