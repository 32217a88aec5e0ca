//go:build linux

// Web is the HTTP server that package bench measures, on the library and on its peers in Go. Its first argument says on
// which:
//
//	prefork    this library
//	fasthttp   fasthttp's package prefork; as many workers as GOMAXPROCS
//	tableflip  one process, which SIGHUP replaces
//	single     one process
//	main       says "main", and ends
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
	fast       = flag.Bool("fast", false, "fasthttp's server, not net/http's")
	watch      = flag.Bool("watch", false, "OnMasterDeath (fasthttp)")
)

func main() {
	if len(os.Args) < 2 {
		log.Fatal("web: for package bench; see go run ./bench -h")
	}
	if os.Args[1] == "main" {
		os.Stdout.WriteString("main\n")
		return
	}
	flag.CommandLine.Parse(os.Args[2:])
	var err error
	switch part := os.Args[1]; part {
	case "prefork":
		err = onPrefork()
	case "fasthttp":
		err = onFasthttp()
	case "tableflip":
		err = onTableflip()
	case "single":
		err = onNothing()
	default:
		log.Fatalf("web: there is no part %q", part)
	}
	if err != nil {
		log.Fatal(err)
	}
}

// respond is what all servers answer, whatever they are built on.
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
