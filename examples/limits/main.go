// Limits is an HTTP server whose workers have no more than their share of the machine and no rights that they do not
// need, and are replaced when they hang or grow.
//
//	go run ./examples/limits
package main

import (
	"context"
	"flag"
	"fmt"
	"log"
	"net/http"
	"os"
	"regexp"
	"runtime"
	"sync"
	"syscall"
	"time"

	"github.com/prefork-go/prefork"
	"github.com/prefork-go/prefork/preforkhttp"
)

var (
	listen = flag.String("listen", "127.0.0.1:8080", "address to serve on")
	user   = flag.String("user", "", "user that the workers run as; for root only")
	chroot = flag.String("chroot", "", "directory that the workers have for their root; for root only")
	broken = flag.Bool("broken", false, "workers that crash at once, until the manager gives up")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{ // in a worker its resources are in force from here on
		MaxWorkers:  2,
		StopTimeout: 10 * time.Second,
		Resources:   resources(),
		Stuck:       prefork.Stuck{Timeout: 3 * time.Second},                     // busy for so long without a beat
		Recycle:     prefork.Recycle{MaxMemory: 100 << 20},                       // 100 MiB, or up to a fifth less
		CrashLoop:   prefork.CrashLoop{Failures: 4, Window: 30 * time.Second},    // and no worker ready
		TrapSignals: prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}}, // stop; so does Ctrl-C
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // by the manager, so that a port below 1024 is no matter
	if err != nil {
		log.Fatal(err)
	}
	if !prefork.IsWorker() { // main runs in every worker too, up to Run
		help(ln.Addr().String())
	}
	if err := pm.Run(context.Background(), func(w *prefork.Worker) error {
		if *broken {
			return fmt.Errorf("worker %d is broken", w.Slot())
		}
		fmt.Printf("worker %d: %s\n", w.Slot(), has())
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w)})
	}); err != nil {
		log.Fatal(err) // prefork.ErrCrashLoop, if it gave up
	}
}

func resources() prefork.Resources {
	r := prefork.Resources{
		GOMAXPROCS: 1,
		Nice:       5,
		Rlimits:    []prefork.Rlimit{{Resource: "core", Soft: 0}}, // no core files
		User:       *user,
		Chroot:     *chroot,
	}
	if runtime.GOOS == "linux" { // elsewhere New refuses these
		r.CPUsPerWorker = 1
		r.NoNewPrivs = true
	}
	return r
}

func help(address string) {
	fmt.Printf("serving on http://%s with 2 workers\n", address)
	fmt.Printf("try:  curl http://%s/        what a worker has\n", address)
	fmt.Printf("      curl http://%s/hang    a request that never ends: after 3 s its worker is replaced, its stacks are in the log\n", address)
	fmt.Printf("      curl http://%s/leak    32 MiB more each time: from 100 MiB on the worker is replaced, on Linux\n", address)
	fmt.Printf("      kill %d, or Ctrl-C\n", os.Getpid())
	fmt.Printf("      start it with -broken, or as root with -user nobody -chroot DIR, an empty directory\n")
}

func handler(w *prefork.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "worker %d: %s\n", w.Slot(), has())
	})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) {
		w.SetStatus('H') // busy, and no Heartbeat follows: one from another request of this worker would hide it
		select {}
	})
	var mu sync.Mutex
	var kept [][]byte
	mux.HandleFunc("/leak", func(rw http.ResponseWriter, _ *http.Request) {
		more := make([]byte, 32<<20)
		for i := 0; i < len(more); i += os.Getpagesize() {
			more[i] = 1 // only a page that was written to is in memory
		}
		mu.Lock()
		defer mu.Unlock()
		kept = append(kept, more)
		fmt.Fprintf(rw, "worker %d, pid %d, has %d MiB more\n", w.Slot(), os.Getpid(), 32*len(kept))
	})
	return mux
}

// has is what this worker has, as far as the system says.
func has() string {
	nice, _ := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if runtime.GOOS == "linux" {
		nice = 20 - nice // what the system call returns there, so that it is never negative
	}
	var core syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_CORE, &core)
	text := fmt.Sprintf("pid %d, uid %d, nice %d, core files of %d bytes, GOMAXPROCS %d", os.Getpid(), os.Getuid(), nice, core.Cur, runtime.GOMAXPROCS(0))
	status, _ := os.ReadFile("/proc/self/status") // not there in a chroot
	for _, m := range regexp.MustCompile(`(?m)^(NoNewPrivs|Cpus_allowed_list):\s*(\S+)$`).FindAllSubmatch(status, -1) {
		text += fmt.Sprintf(", %s %s", m[1], m[2])
	}
	return text
}
