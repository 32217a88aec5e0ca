// Pools is one program with two pools of workers. The pool web accepts jobs
// over HTTP and stores them in a directory, and the pool queue does them. Each
// pool is a Manager with its own name and signal table, in its own goroutine.
//
// Run it, submit a job that sleeps for two seconds, replace the workers, and
// stop the program. PID is the manager's pid, which the program prints.
//
//	go run ./examples/pools
//	curl -d 2s http://127.0.0.1:8080/
//	kill -HUP PID, or go run ./cmd/prefork -s web -p queue reload
//	kill PID
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
	"github.com/prefork-go/prefork/ops"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	hup    = flag.String("hup", "web,queue", "pools whose workers HUP replaces")
)

func main() {
	flag.Parse()
	web, queue := manager("web"), manager("queue")
	defer ops.Attach(web, queue)()        // one control socket for both
	ln, err := web.Listen("tcp", *listen) // in a worker of queue: a listener without connections
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker of both pools, up to Run
		dir, err := os.MkdirTemp("", "prefork-jobs-")
		if err != nil {
			log.Fatal(err)
		}
		defer os.RemoveAll(dir)
		web.Pass([]byte(dir))
		queue.Pass([]byte(dir))
		fmt.Printf("serving on http://%s, jobs are in %s\n", ln.Addr(), dir)
		fmt.Printf("try:  curl -d 2s http://%s/    a job of two seconds\n", ln.Addr())
		fmt.Printf("      kill -HUP %[1]d    kill %[1]d, or Ctrl-C\n", os.Getpid())
	}
	var both sync.WaitGroup
	both.Go(func() {
		run(web, func(w *prefork.Worker) error {
			return preforkhttp.Serve(w, ln, &http.Server{Handler: acceptJobs(w)})
		})
	})
	both.Go(func() { run(queue, doJobs) }) // in a worker, only the Run of its pool does anything
	both.Wait()
}

func manager(name string) *prefork.Manager {
	// SIGTERM stops both pools, as Ctrl-C does.
	table := prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}}
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

// acceptJobs returns the handler of the pool web, which stores the body of each
// request in a file. It renames the file to *.job when it is complete.
func acceptJobs(w *prefork.Worker) http.Handler {
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
		fmt.Fprintf(rw, "web worker %d accepted job %s\n", w.Slot(), name(f.Name()))
	})
}

// doJobs is the work of the pool queue. It does one job after another. A
// stopping worker finishes its job.
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
		time.Sleep(pause) // simulates the work
		fmt.Printf("queue worker %d did job %s\n", w.Slot(), name(job))
		if err := os.Remove(job); err != nil {
			return err
		}
	}
	return nil
}

// next claims a job for the slot and returns its file, or "" if there is none.
// It renames the file after the slot, which succeeds in only one worker. If a
// file of that name exists, the previous worker of the slot was killed during
// the job, so next returns it first.
func next(dir string, slot int) string {
	suffix := fmt.Sprint(".slot", slot)
	if unfinished, _ := filepath.Glob(filepath.Join(dir, "*"+suffix)); len(unfinished) > 0 {
		return unfinished[0]
	}
	jobs, _ := filepath.Glob(filepath.Join(dir, "*.job"))
	for _, job := range jobs {
		if os.Rename(job, job+suffix) == nil {
			return job + suffix
		}
	}
	return ""
}

func name(file string) string {
	name, _, _ := strings.Cut(filepath.Base(file), ".")
	return name
}
