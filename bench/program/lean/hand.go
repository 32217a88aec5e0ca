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

// byHand keeps n processes as somebody would who has no library: start them in a loop, wait for each, signal each in a
// loop. SIGUSR1 is passed on; SIGTERM too, and ends it when all have ended.
func byHand(n int, again, wired bool) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	if again {
		for range n {
			go func() {
				for {
					wait(start(wired))
				}
			}()
		}
		<-signals // the processes end with the pipe that they write to, or are killed by whoever measures
		return
	}
	processes := make([]*os.Process, n)
	for i := range processes {
		processes[i] = start(wired)
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

func start(wired bool) *os.Process {
	args, files := []string{os.Args[0], "child"}, []uintptr{0, 1, 2}
	if wired {
		// Its other end stays open for as long as this process lives.
		ends, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
		if err != nil {
			log.Fatal(err)
		}
		defer syscall.Close(ends[1])
		args, files = append(args, "-wired"), append(files, uintptr(ends[1]))
	}
	pid, _, err := syscall.StartProcess("/proc/self/exe", args, &syscall.ProcAttr{
		Env: os.Environ(), Files: files, Sys: &syscall.SysProcAttr{Setpgid: true}, // as the workers of a pool have
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

// parkedByHand keeps one process at work and one that only has to be told to begin, as somebody would who has no library.
func parkedByHand() {
	next := parked()
	for {
		current := next
		if _, err := current.toldBy.Write([]byte{1}); err != nil {
			log.Fatal(err)
		}
		current.toldBy.Close()
		go func() {
			time.Sleep(10 * time.Millisecond) // as a Manager does: it is not to take the processor from the one that was told
			next = parked()
			close(current.succeeded)
		}()
		wait(current.process)
		<-current.succeeded
	}
}

// parkedProcess is one that waits to be told.
type parkedProcess struct {
	process   *os.Process
	toldBy    *os.File
	succeeded chan struct{} // closed when the next is parked
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
