//go:build linux

// Web is the HTTP server that package bench measures, with the library and with
// its peers in Go. Its first argument selects one:
//
//	prefork    this library
//	fasthttp   fasthttp's package prefork, with GOMAXPROCS workers
//	tableflip  one process, replaced on SIGHUP
//	single     one process
//	main       prints "main" and exits
//
// It serves /hello, /alloc, which allocates a tree of 1,023 nodes, and /pid.
package main

import (
	"flag"
	"log"
	"os"

	"github.com/valyala/fasthttp"
)

var (
	listen     = flag.String("listen", "127.0.0.1:0", "address")
	workers    = flag.Int("workers", 1, "number of workers (prefork)")
	standby    = flag.Int("standby", 0, "Standby (prefork)")
	gomaxprocs = flag.Int("gomaxprocs", 0, "Resources.GOMAXPROCS (prefork)")
	each       = flag.Bool("each", false, "a socket for each worker")
	fast       = flag.Bool("fast", false, "fasthttp's server instead of net/http's")
	watch      = flag.Bool("watch", false, "OnMasterDeath (fasthttp)")
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("web: no mode given: this program is started by go run ./bench")
	}
	if os.Args[1] == "main" {
		os.Stdout.WriteString("main\n")
		return
	}
	flag.CommandLine.Parse(os.Args[2:])
	var err error
	switch mode := os.Args[1]; mode {
	case "prefork":
		err = onPrefork()
	case "fasthttp":
		err = onFasthttp()
	case "tableflip":
		err = onTableflip()
	case "single":
		err = onSingle()
	default:
		log.Fatalf("web: unknown mode %q: want prefork, fasthttp, tableflip, single or main", mode)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// respond returns the response of all servers.
func respond(path string) string {
	switch path {
	case "/hello":
		return "hello, world\n"
	case "/alloc":
		return tree(9).text()
	}
	return pid
}

func fastHandler(ctx *fasthttp.RequestCtx) { ctx.WriteString(respond(string(ctx.Path()))) }
