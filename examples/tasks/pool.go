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

// pool runs tasks in workers, one task a worker. Between each worker and the manager there is a socket: the task goes down;
// up come the word that it was taken, and the answer.
type pool struct {
	task    func(arg json.RawMessage) (any, error) // in a worker
	assign  func(id string)                        // in the manager, as are the next two; one at a time
	success func(id string, result json.RawMessage)
	failure func(id string, why error)

	pm     *prefork.Manager
	tasks  chan *task
	ended  chan struct{} // there are no workers any more
	worker sync.WaitGroup
	theirs *os.File // the socket of the worker that is being spawned
	ours   net.Conn

	mu    sync.Mutex // held in callbacks
	gone  map[int]chan prefork.Exit
	open  int // tasks that were submitted and not collected
	fewer *sync.Cond
}

type task struct {
	id   string
	arg  json.RawMessage
	took chan struct{} // closed when a worker has it
}

// answer is what a worker writes when its task is done.
type answer struct {
	Result json.RawMessage
	Error  string
}

// manager makes the Manager, whose hooks give each worker its socket and see how it ends. MaxWorkers is the capacity.
func (p *pool) manager(cfg prefork.Config) (err error) {
	p.tasks, p.ended, p.gone = make(chan *task), make(chan struct{}), make(map[int]chan prefork.Exit)
	p.fewer = sync.NewCond(&p.mu)
	cfg.ErrRespawnInterval = -1 // workers are meant to end, and soon
	cfg.BeforeSpawn, cfg.AfterSpawn = p.beforeSpawn, p.afterSpawn
	cfg.OnChildReap = func(_ *prefork.Manager, e prefork.Exit) { p.exit(e.Ordinal) <- e }
	p.pm, err = prefork.New(cfg)
	return err
}

// exit is where the end of a worker is told.
func (p *pool) exit(ordinal int) chan prefork.Exit {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.gone[ordinal] == nil {
		p.gone[ordinal] = make(chan prefork.Exit, 1)
	}
	return p.gone[ordinal]
}

func (p *pool) beforeSpawn(_ *prefork.Manager, sp *prefork.Spawn) {
	p.forget() // of a spawn that has failed
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		return // the worker says that it has no socket, and ends
	}
	ours := os.NewFile(uintptr(fds[0]), "task")
	p.theirs = os.NewFile(uintptr(fds[1]), "task")
	syscall.CloseOnExec(fds[0])
	syscall.CloseOnExec(fds[1])
	p.ours, err = net.FileConn(ours)
	ours.Close()
	if err != nil {
		p.theirs.Close()
		p.theirs = nil
		return
	}
	sp.Files = []*os.File{p.theirs}
}

func (p *pool) forget() {
	if p.theirs != nil {
		p.theirs.Close()
		p.ours.Close()
		p.theirs = nil
	}
}

func (p *pool) afterSpawn(m *prefork.Manager, _ int) {
	if p.theirs == nil {
		return
	}
	p.theirs.Close() // so that the end of the worker is the end of the socket
	p.theirs = nil
	workers := m.Snapshot().Workers
	ordinal, conn := workers[len(workers)-1].Ordinal, p.ours
	p.worker.Go(func() { p.serve(ordinal, conn) })
}

// serve gives a worker its task and collects what comes of it.
func (p *pool) serve(ordinal int, conn net.Conn) {
	defer conn.Close()
	gone := p.exit(ordinal)
	defer func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		delete(p.gone, ordinal)
	}()
	var t *task
	select {
	case <-gone:
		return
	case t = <-p.tasks:
	}
	in := json.NewDecoder(conn)
	var taken bool
	if json.NewEncoder(conn).Encode(t.arg) != nil || in.Decode(&taken) != nil {
		<-gone
		go p.offer(t) // it ended before it had begun: another worker gets it
		return
	}
	p.mu.Lock()
	p.assign(t.id)
	p.mu.Unlock()
	close(t.took)
	var a answer
	err := in.Decode(&a)
	p.collect(t, a, err, <-gone)
}

// collect tells what has come of a task. How the worker ended counts for more than what it has written: a death by a signal
// is a failure.
func (p *pool) collect(t *task, a answer, err error, e prefork.Exit) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case e.Status.Signal != 0 || e.Status.Code != 0 || e.Status.Unknown:
		p.failure(t.id, fmt.Errorf("worker terminated with %v", e.Status))
	case a.Error != "":
		p.failure(t.id, errors.New(a.Error))
	case err != nil: // it has ended well without a word, as another program does that the task has become
		p.success(t.id, nil)
	default:
		p.success(t.id, a.Result)
	}
	p.open--
	p.fewer.Broadcast()
}

// process waits until a worker has the task, and is false if the pool ends before that. Any goroutine of the manager.
func (p *pool) process(id string, arg any) bool {
	data, err := json.Marshal(arg)
	if err != nil {
		data = nil // and the task says what is wrong with it
	}
	t := &task{id, data, make(chan struct{})}
	p.mu.Lock()
	p.open++
	p.mu.Unlock()
	go p.offer(t)
	select {
	case <-t.took:
		return true
	case <-p.ended:
	}
	select {
	case <-t.took:
		return true
	default:
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.open--
	p.fewer.Broadcast()
	return false
}

func (p *pool) offer(t *task) {
	select {
	case p.tasks <- t:
	case <-p.ended:
	}
}

// pending is the number of tasks that were submitted and not collected.
func (p *pool) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.open
}

// sync waits until there are none.
func (p *pool) sync() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for p.open > 0 {
		p.fewer.Wait()
	}
}

// run runs the pool until ctx ends, or it is stopped, and then until the tasks that have begun are done. submit is called in a
// goroutine, in the manager alone.
func (p *pool) run(ctx context.Context, submit func()) error {
	if !prefork.IsWorker() {
		go submit()
	}
	err := p.pm.Run(ctx, p.work)
	p.worker.Wait()
	p.forget()
	close(p.ended)
	return err
}

// work is a worker: it waits for its task and does it.
func (p *pool) work(w *prefork.Worker) error {
	file := os.NewFile(3, "task") // Spawn.Files begin there
	conn, err := net.FileConn(file)
	if err != nil {
		return err
	}
	file.Close() // what the task starts would inherit it, and the end of the socket would not tell the end of the worker
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
			return p.do(json.NewEncoder(conn), arg)
		case <-w.Pausing():
		case <-w.Context().Done():
		}
	}
	return nil
}

func (p *pool) do(out *json.Encoder, arg json.RawMessage) error {
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
