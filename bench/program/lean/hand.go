//go:build linux

package main

import (
	"log"
	"os"
	"os/signal"
	"sync"
	"syscall"
)

// byHand keeps n processes as somebody would who has no library: start them in a loop, wait for each, signal each in a
// loop. SIGUSR1 is passed on; SIGTERM too, and ends it when all have ended.
func byHand(n int, again bool) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGUSR1, syscall.SIGTERM)
	if again {
		for range n {
			go func() {
				for {
					wait(start())
				}
			}()
		}
		<-signals // the processes end with the pipe that they write to, or are killed by whoever measures
		return
	}
	processes := make([]*os.Process, n)
	for i := range processes {
		processes[i] = start()
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

func start() *os.Process {
	p, err := os.StartProcess("/proc/self/exe", []string{os.Args[0], "child"}, &os.ProcAttr{
		Files: []*os.File{os.Stdin, os.Stdout, os.Stderr},
		Sys:   &syscall.SysProcAttr{Setpgid: true}, // as the workers of a pool have
	})
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
