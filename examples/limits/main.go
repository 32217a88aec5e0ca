// Limits is an HTTP server that limits its workers. Each has its share of the
// processors and no privileges beyond those that it needs. The manager replaces
// a worker that hangs or that uses too much memory.
//
// Run it, print the limits of a worker, and let workers hang and grow. The
// program prints the commands. With -broken all workers crash, and the manager
// shuts down. Root can run the workers as another user in an empty directory.
//
//	go run ./examples/limits
//	curl http://127.0.0.1:8080/
//	curl http://127.0.0.1:8080/hang
//	curl http://127.0.0.1:8080/leak
//	go run ./examples/limits -broken
//	go run ./examples/limits -user nobody -chroot DIR
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
	user   = flag.String("user", "", "run the workers as this user; for root only")
	chroot = flag.String("chroot", "", "root directory of the workers; for root only")
	broken = flag.Bool("broken", false, "let the workers crash until the manager shuts down")
)

func main() {
	flag.Parse()
	pm, err := prefork.New(prefork.Config{ // in a worker, New applies the Resources
		MaxWorkers:  2,
		StopTimeout: 10 * time.Second,
		Resources:   resources(),
		// Busy without a heartbeat.
		Stuck: prefork.Stuck{Timeout: 3 * time.Second},
		// 100 MiB, or up to 20 % less.
		Recycle: prefork.Recycle{MaxMemory: 100 << 20},
		// Counted while no worker is ready.
		CrashLoop: prefork.CrashLoop{Failures: 4, Window: 30 * time.Second},
		// SIGTERM stops, as Ctrl-C does.
		TrapSignals: prefork.Signals{syscall.SIGTERM: {Signal: syscall.SIGTERM}},
	})
	if err != nil {
		log.Fatal(err)
	}
	ln, err := pm.Listen("tcp", *listen) // by the manager, which may bind a port below 1024
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
		fmt.Printf("worker %d: %s\n", w.Slot(), limits())
		return preforkhttp.Serve(w, ln, &http.Server{Handler: handler(w)})
	}); err != nil {
		log.Fatal(err) // prefork.ErrCrashLoop after a crash loop
	}
}

// workerNice must not be less than the nice value of the manager, unless that
// runs as root.
const workerNice = 5

func resources() prefork.Resources {
	r := prefork.Resources{
		GOMAXPROCS: 1,
		Nice:       workerNice,
		Rlimits:    []prefork.Rlimit{{Resource: "core", Soft: 0}}, // no core files
		User:       *user,
		Chroot:     *chroot,
	}
	if runtime.GOOS == "linux" { // on other systems New returns an error for these
		r.CPUsPerWorker = 1
		r.NoNewPrivs = true
	}
	return r
}

func help(address string) {
	fmt.Printf("serving on http://%s with 2 workers\n", address)
	fmt.Printf("try:  curl http://%s/        the limits of a worker\n", address)
	fmt.Printf("      curl http://%s/hang    hang: its stacks are logged, and it is replaced\n", address)
	fmt.Printf("      curl http://%s/leak    leak 32 MiB: on Linux it is replaced at 100 MiB\n", address)
	fmt.Printf("      kill %d, or Ctrl-C\n", os.Getpid())
	fmt.Printf("      start it with -broken, or as root with -user nobody and -chroot to an empty directory\n")
}

func handler(w *prefork.Worker) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(rw http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(rw, "worker %d: %s\n", w.Slot(), limits())
	})
	mux.HandleFunc("/hang", func(http.ResponseWriter, *http.Request) {
		// Busy, and no Heartbeat follows. A Heartbeat of another request of
		// this worker would hide that this one hangs.
		w.SetStatus('H')
		select {}
	})
	var mu sync.Mutex
	var leaked [][]byte
	mux.HandleFunc("/leak", func(rw http.ResponseWriter, _ *http.Request) {
		more := make([]byte, 32<<20)
		for i := 0; i < len(more); i += os.Getpagesize() {
			more[i] = 1 // the kernel allocates a page at the first write
		}
		mu.Lock()
		defer mu.Unlock()
		leaked = append(leaked, more)
		fmt.Fprintf(rw, "worker %d, pid %d, has leaked %d MiB\n", w.Slot(), os.Getpid(), 32*len(leaked))
	})
	return mux
}

var statusLines = regexp.MustCompile(`(?m)^(NoNewPrivs|Cpus_allowed_list):\s*(\S+)$`)

// limits returns the limits of this process, as the system reports them.
func limits() string {
	var core syscall.Rlimit
	syscall.Getrlimit(syscall.RLIMIT_CORE, &core)
	text := fmt.Sprintf("pid %d, uid %d, nice %d, core files of %d bytes, GOMAXPROCS %d",
		os.Getpid(), os.Getuid(), niceValue(), core.Cur, runtime.GOMAXPROCS(0))
	status, _ := os.ReadFile("/proc/self/status") // a chroot has no /proc
	for _, m := range statusLines.FindAllSubmatch(status, -1) {
		text += fmt.Sprintf(", %s %s", m[1], m[2])
	}
	return text
}

// niceValue returns the nice value of this process.
func niceValue() int {
	nice, _ := syscall.Getpriority(syscall.PRIO_PROCESS, 0)
	if runtime.GOOS == "linux" {
		nice = 20 - nice // Linux returns 20 minus the value, which is never negative
	}
	return nice
}
