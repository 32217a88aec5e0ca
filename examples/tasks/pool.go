package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"syscall"

	"github.com/prefork-go/prefork"
)

// A pool runs tasks in workers, one task in each. A socket connects each worker
// with the manager. The manager sends the task, and the worker sends an
// acknowledgement and the answer.
type pool struct {
	task func(arg json.RawMessage) (any, error) // called in a worker

	// The callbacks are called in the manager, one at a time.
	assign  func(id string)
	success func(id string, result json.RawMessage)
	failure func(id string, err error)

	pm      *prefork.Manager
	tasks   chan *task
	closed  chan struct{} // closed after the last worker has exited
	serving sync.WaitGroup

	// The ends of the socket of the worker that is being spawned. Only the
	// goroutine of the manager uses them.
	workerEnd  *os.File
	managerEnd net.Conn

	mu        sync.Mutex // held in callbacks
	exits     map[int]chan prefork.Exit
	open      int // tasks that were submitted and not collected
	collected *sync.Cond
}

type task struct {
	id       string
	arg      json.RawMessage
	assigned chan struct{} // closed when a worker has the task
}

// An answer is written by a worker when its task is done.
type answer struct {
	Result json.RawMessage
	Error  string
}

// newManager creates the Manager. Its hooks pass a socket to each worker and
// record its exit. MaxWorkers is the capacity of the pool.
func (p *pool) newManager(cfg prefork.Config) (err error) {
	p.tasks, p.closed = make(chan *task), make(chan struct{})
	p.exits = make(map[int]chan prefork.Exit)
	p.collected = sync.NewCond(&p.mu)
	cfg.ErrRespawnInterval = -1 // short lives are normal here
	cfg.BeforeSpawn, cfg.AfterSpawn = p.beforeSpawn, p.afterSpawn
	cfg.OnChildReap = func(_ *prefork.Manager, e prefork.Exit) { p.exit(e.Ordinal) <- e }
	p.pm, err = prefork.New(cfg)
	return err
}

// exit returns the channel on which the exit of a worker is sent.
func (p *pool) exit(ordinal int) chan prefork.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.exits[ordinal] == nil {
		p.exits[ordinal] = make(chan prefork.Exit, 1)
	}
	return p.exits[ordinal]
}

func (p *pool) beforeSpawn(_ *prefork.Manager, sp *prefork.Spawn) {
	p.closeSocket() // of a failed spawn
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return // the worker fails, because it has no socket
	}
	managerEnd := os.NewFile(uintptr(fds[0]), "task")
	p.workerEnd = os.NewFile(uintptr(fds[1]), "task")
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	p.managerEnd, err = net.FileConn(managerEnd)
	managerEnd.Close()
	if err != nil {
		p.workerEnd.Close()
		p.workerEnd = nil
		return
	}
	sp.Files = []*os.File{p.workerEnd}
}

// closeSocket closes both ends of a socket that no worker has.
func (p *pool) closeSocket() {
	if p.workerEnd != nil {
		p.workerEnd.Close()
		p.managerEnd.Close()
		p.workerEnd = nil
	}
}

func (p *pool) afterSpawn(m *prefork.Manager, _ int) {
	if p.workerEnd == nil {
		return
	}
	p.workerEnd.Close() // so that the socket ends when the worker exits
	p.workerEnd = nil
	workers := m.Snapshot().Workers
	ordinal, conn := workers[len(workers)-1].Ordinal, p.managerEnd
	p.serving.Go(func() { p.serve(ordinal, conn) })
}

// serve sends a task to a worker and collects its answer.
func (p *pool) serve(ordinal int, conn net.Conn) {
	defer conn.Close()
	exit := p.exit(ordinal)
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.exits, ordinal)
	}()
	var t *task
	select {
	case <-exit:
		return
	case t = <-p.tasks:
	}
	in := json.NewDecoder(conn)
	var acknowledged bool
	if json.NewEncoder(conn).Encode(t.arg) != nil || in.Decode(&acknowledged) != nil {
		<-exit
		go p.offer(t) // the worker exited before it began: another one gets the task
		return
	}
	p.mu.Lock()
	p.assign(t.id)
	p.mu.Unlock()
	close(t.assigned)
	var a answer
	err := in.Decode(&a)
	p.collect(t, a, err, <-exit)
}

// collect reports the result of a task. The exit status takes precedence over
// the answer: a worker that was killed by a signal is a failure.
func (p *pool) collect(t *task, a answer, err error, e prefork.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case e.Status.Signal != 0 || e.Status.Code != 0 || e.Status.Unknown:
		p.failure(t.id, fmt.Errorf("worker terminated with %v", e.Status))
	case a.Error != "":
		p.failure(t.id, errors.New(a.Error))
	case err != nil: // exit status 0 without an answer: the task has executed another program
		p.success(t.id, nil)
	default:
		p.success(t.id, a.Result)
	}
	p.open--
	p.collected.Broadcast()
}

// process submits a task and waits until a worker has it. It returns false if
// the pool stops before that. It may be called from any goroutine of the
// manager.
func (p *pool) process(id string, arg any) bool {
	data, err := json.Marshal(arg)
	if err != nil {
		data = nil // the task reports the error
	}
	t := &task{id: id, arg: data, assigned: make(chan struct{})}
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
	go p.offer(t)
	select {
	case <-t.assigned:
		return true
	case <-p.closed:
	}
	select {
	case <-t.assigned:
		return true
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.collected.Broadcast()
	return false
}

func (p *pool) offer(t *task) {
	select {
	case p.tasks <- t:
	case <-p.closed:
	}
}

// pending returns the number of tasks that were submitted and not collected.
func (p *pool) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// sync waits until no task is pending.
func (p *pool) sync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.open > 0 {
		p.collected.Wait()
	}
}

// run runs the pool until ctx ends or the pool is stopped. It returns after the
// tasks that have begun are done. It calls submit in a goroutine of the
// manager.
func (p *pool) run(ctx context.Context, submit func()) error {
	if !prefork.IsWorker() {
		go submit()
	}
	err := p.pm.Run(ctx, p.work)
	p.serving.Wait()
	p.closeSocket()
	close(p.closed)
	return err
}

// firstFile is the descriptor of the first file of Spawn.Files.
const firstFile = 3

// work is called in a worker. It waits for one task and does it.
func (p *pool) work(w *prefork.Worker) error {
	file := os.NewFile(firstFile, "task")
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	// A process that the task starts would inherit file. The socket would stay
	// open after the worker has exited.
	file.Close()
	args := make(chan json.RawMessage, 1)
	go func() {
		var arg json.RawMessage
		if json.NewDecoder(conn).Decode(&arg) == nil {
			args <- arg
		}
	}()
	for w.Checkpoint() {
		select {
		case arg := <-args:
			return p.execute(json.NewEncoder(conn), arg)
		case <-w.Pausing():
		case <-w.Context().Done():
		}
	}
	return nil
}

// execute acknowledges the task, does it, and writes the answer.
func (p *pool) execute(out *json.Encoder, arg json.RawMessage) error {
	if err := out.Encode(true); err != nil {
		return err
	}
	result, err := p.task(arg)
	var a answer
	if err == nil {
		a.Result, err = json.Marshal(result)
	}
	if err != nil {
		a.Error = err.Error()
	}
	return out.Encode(a)
}
