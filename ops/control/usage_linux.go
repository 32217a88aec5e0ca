package control

import (
	"bytes"
	"os"
	"strconv"
)

// usageOf returns the memory and the CPU time of a worker, nil if they cannot be
// read. Its parent is examined last: a pid that was given to another process
// since is never shown.
func usageOf(pid int) (rss, private *int64, cpu *float64) {
	dir := "/proc/" + strconv.Itoa(pid)
	statm, err := os.ReadFile(dir + "/statm")
	if err != nil {
		return nil, nil, nil
	}
	stat, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, nil, nil
	}
	resident, shared, ok := parseStatm(statm)
	parent, ticks, ok2 := parseStat(stat)
	if !ok || !ok2 || parent != os.Getpid() {
		return nil, nil, nil
	}
	page := int64(os.Getpagesize())
	rssBytes, privateBytes, seconds := resident*page, max(resident-shared, 0)*page, float64(ticks)/ticksPerSecond
	return &rssBytes, &privateBytes, &seconds
}

// ticksPerSecond is the unit of CPU times in /proc on all platforms of Go.
const ticksPerSecond = 100

// parseStatm returns the resident and the shared pages.
func parseStatm(statm []byte) (resident, shared int64, ok bool) {
	f := bytes.Fields(statm)
	if len(f) < 3 {
		return 0, 0, false
	}
	resident, err := strconv.ParseInt(string(f[1]), 10, 64)
	if err != nil {
		return 0, 0, false
	}
	shared, err = strconv.ParseInt(string(f[2]), 10, 64)
	return resident, shared, err == nil
}

// parseStat returns the parent and the CPU time of a process. The name of the
// program, in parentheses, can contain anything.
func parseStat(stat []byte) (parent int, ticks uint64, ok bool) {
	i := bytes.LastIndexByte(stat, ')')
	if i < 0 {
		return 0, 0, false
	}
	f := bytes.Fields(stat[i+1:])
	if len(f) < 13 {
		return 0, 0, false
	}
	parent, err := strconv.Atoi(string(f[1]))
	if err != nil {
		return 0, 0, false
	}
	for _, field := range f[11:13] { // of the user and of the system
		n, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return 0, 0, false
		}
		ticks += n
	}
	return parent, ticks, true
}
