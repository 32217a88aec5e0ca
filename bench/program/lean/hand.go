//go:build linux

package main

import (
	"log"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"time"
)

// byHand keeps n processes without the library. It starts them in a loop, waits
// for each, and sends signals in a loop. It forwards SIGUSR1 and SIGTERM; after
// SIGTERM it exits when all processes have exited.
func byHand(n int, program string, again, wired bool) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	if again {
		for range n {
			go func() {
				for {
					wait(start(program, wired))
				}
			}()
		}
		<-signals // the processes die of a write to the closed pipe, or bench kills them
		return
	}
	processes := make([]*os.Process, n)
	for i := range processes {
		processes[i] = start(program, wired)
	}
	for sig := range signals {
		for _, p := range processes {
			p.Signal(sig)
		}
		if sig == syscall.SIGTERM {
			break
		}
	}
	var ended sync.WaitGroup
	for _, p := range processes {
		ended.Go(func() { wait(p) })
	}
	ended.Wait()
}

func start(program string, wired bool) *os.Process {
	args, files := []string{os.Args[0], "child"}, []uintptr{0, 1, 2}
	if program == "" {
		program = "/proc/self/exe"
	}
	if wired {
		// The other end stays open for the lifetime of this process.
		ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			log.Fatal(err)
		}
		defer syscall.Close(ends[1])
		args, files = append(args, "-wired"), append(files, uintptr(ends[1]))
	}
	pid, _, err := syscall.StartProcess(program, args, &syscall.ProcAttr{
		Env: os.Environ(), Files: files,
		Sys: &syscall.SysProcAttr{Setpgid: true}, // as for the workers of a pool
	})
	if err != nil {
		log.Fatal(err)
	}
	p, err := os.FindProcess(pid)
	if err != nil {
		log.Fatal(err)
	}
	return p
}

func wait(p *os.Process) {
	if _, err := p.Wait(); err != nil {
		log.Fatal(err)
	}
}

// parkedByHand keeps one process at work, and a parked one that only has to be
// woken, without the library.
func parkedByHand() {
	next := parked()
	for {
		current := next
		if _, err := current.wake.Write([]byte{1}); err != nil {
			log.Fatal(err)
		}
		current.wake.Close()
		go func() {
			// As a Manager does, leave the processor to the woken process.
			time.Sleep(10 * time.Millisecond)
			next = parked()
			close(current.replaced)
		}()
		wait(current.process)
		<-current.replaced
	}
}

// parkedProcess is a process that waits to be woken.
type parkedProcess struct {
	process  *os.Process
	wake     *os.File
	replaced chan struct{} // closed after the next is parked
}

func parked() *parkedProcess {
	r, w, err := os.Pipe()
	if err != nil {
		log.Fatal(err)
	}
	cmd := exec.Command("/proc/self/exe", "child", "-parked")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = r, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		log.Fatal(err)
	}
	r.Close()
	return &parkedProcess{cmd.Process, w, make(chan struct{})}
}
