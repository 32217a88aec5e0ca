package sockets

import (
	"runtime"
	"strconv"
	"strings"
)

// siteOf returns the place in the program at which this call of Listen was made.
// It returns 0 if the address alone tells the socket apart: no two sockets are
// bound to one port.
func siteOf(address string) int {
	if address == "" || address == "@" || strings.HasSuffix(address, ":0") {
		return callSite()
	}
	return 0
}

// callSite returns a number for the callers outside this library: a hash of the
// nearest one, and a hash of all of them in the lower outerBits bits. It is equal
// in the manager and in a worker that runs the same program.
func callSite() int {
	var pcs [64]uintptr
	frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
	h, nearest := uint32(2166136261), uint32(0) // FNV-1a
	for {
		f, more := frames.Next()
		if !isLibrary(f.Function) {
			for _, c := range []byte(f.Function + ":" + strconv.Itoa(f.Line) + "\n") {
				h = (h ^ uint32(c)) * 16777619
			}
			if nearest == 0 {
				nearest = h
			}
		}
		if !more {
			return int(nearest>>(outerBits+1)<<outerBits | h>>(32-outerBits))
		}
	}
}

const outerBits = 15

// nearestSite returns the part of a call site that the nearest caller decides.
func nearestSite(site int) int { return site >> outerBits }

// isLibrary reports whether a function is on the way from the program's call to
// this package.
func isLibrary(function string) bool {
	rest, ok := strings.CutPrefix(function, "github.com/prefork-go/prefork")
	return ok && (strings.HasPrefix(rest, ".") || strings.HasPrefix(rest, "/internal/sockets."))
}
