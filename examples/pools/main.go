// Pools is one program with two pools of workers: web takes jobs by HTTP and lays them into a directory, queue does
// them. Each pool is a Manager with a name and a signal table of its own, in a goroutine of its own.
//
//	go run ./examples/pools
package main

import (
	"context"
	"flag"
	"fmt"
	"io"
	"log"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	hup    = flag.String("hup", "web,queue", "the pools whose workers a HUP replaces")
)

func main() {
	flag.Parse()
	web, queue := manager("web"), manager("queue")
	ln, err := web.Listen("tcp", *listen) // in a worker of queue: a listener to which nobody connects
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker of both pools too, up to Run
		dir, err := os.MkdirTemp("", "prefork-jobs-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		web.Pass([]byte(dir))
		queue.Pass([]byte(dir))
		fmt.Printf("serving on http://%s, jobs lie in %s\n", ln.Addr(), dir)
		fmt.Printf("try:  curl -d 2s http://%s/    a job that takes two seconds\n", ln.Addr())
		fmt.Printf("      kill -HUP %[1]d    kill %[1]d, or Ctrl-C\n", os.Getpid())
	}
	var both sync.WaitGroup
	both.Go(func() {
		run(web, func(w *prefork.Worker) error { return preforkhttp.Serve(w, ln, &http.Server{Handler: takeJobs(w)}) })
	})
	both.Go(func() { run(queue, doJobs) }) // in a worker only the Run of its own pool does anything
	both.Wait()
}

func manager(name string) *prefork.Manager {
	table := prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}} // both pools stop; so they do on Ctrl-C
	if strings.Contains(*hup, name) {
		table[syscall.SIGHUP] = prefork.Forward{Signal: syscall.SIGTERM}
	}
	pm, err := prefork.New(prefork.Config{Name: name, MaxWorkers: 2, TrapSignals: table})
	if err != nil {
		log.Fatal(err)
	}
	return pm
}

func run(pm *prefork.Manager, work func(*prefork.Worker) error) {
	if err := pm.Run(context.Background(), work); err != nil {
		log.Print(err)
	}
}

// takeJobs is what a worker of web does: the body of each request becomes a file, complete once it is called *.job.
func takeJobs(w *prefork.Worker) http.Handler {
	return http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		f, err := os.CreateTemp(string(w.Passed()), "*.new")
		if err == nil {
			_, err = io.Copy(f, r.Body)
			f.Close()
		}
		if err == nil {
			err = os.Rename(f.Name(), strings.TrimSuffix(f.Name(), "new")+"job")
		}
		if err != nil {
			http.Error(rw, err.Error(), http.StatusInternalServerError)
			return
		}
		fmt.Fprintf(rw, "web worker %d took job %s\n", w.Slot(), name(f.Name()))
	})
}

// doJobs is what a worker of queue does: one job after another, each to its end also when it is told to stop.
func doJobs(w *prefork.Worker) error {
	for ctx := w.Context(); ctx.Err() == nil; {
		job := next(string(w.Passed()), w.Slot())
		if job == "" {
			select {
			case <-ctx.Done():
			case <-time.After(50 * time.Millisecond):
			}
			continue
		}
		fmt.Printf("queue worker %d begins job %s\n", w.Slot(), name(job))
		text, _ := os.ReadFile(job)
		pause, _ := time.ParseDuration(string(text))
		time.Sleep(pause) // all the work that there is
		fmt.Printf("queue worker %d did job %s\n", w.Slot(), name(job))
		if err := os.Remove(job); err != nil {
			return err
		}
	}
	return nil
}

// next takes a job by giving it the slot's name, which one worker alone can do. First comes a job that has the name
// already: the worker that had the slot before was killed at it.
func next(dir string, slot int) string {
	mine := fmt.Sprint(".slot", slot)
	if left, _ := filepath.Glob(filepath.Join(dir, "*"+mine)); len(left) > 0 {
		return left[0]
	}
	jobs, _ := filepath.Glob(filepath.Join(dir, "*.job"))
	for _, job := range jobs {
		if os.Rename(job, job+mine) == nil {
			return job + mine
		}
	}
	return ""
}

func name(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".")
	return name
}
