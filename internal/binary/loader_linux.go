package binary

import (
	"os"
	"runtime"
	"strconv"
	"strings"
)

// Loader returns the dynamic loader if a command such as "ld.so ./program" has
// started this process, whose arguments are args, and the program's file. The
// kernel then takes the loader for the program, so that Executable would start
// the loader without a program.
func Loader(args []string) (loader, program string, ok bool) {
	loader, err := os.Readlink("/proc/self/exe")
	command, err2 := os.ReadFile("/proc/self/cmdline")
	if err != nil || err2 != nil {
		return "", "", false
	}
	// The loader removes its own arguments. A library in a program of another
	// language has its code in another file too, but all arguments.
	if len(args) == 0 || strings.Count(string(command), "\x00") <= len(args) {
		return "", "", false
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return "", "", false
	}
	pc, _, _, _ := runtime.Caller(0)
	program = fileAt(string(maps), uint64(pc))
	return loader, program, program != "" && program != loader
}

// fileAt returns the file that is mapped at an address; "" for none.
func fileAt(maps string, address uint64) string {
	for line := range strings.Lines(maps) {
		// begin-end permissions offset device inode, then blanks and the path
		span, rest, _ := strings.Cut(strings.TrimSuffix(line, "\n"), " ")
		begin, end, _ := strings.Cut(span, "-")
		from, err1 := strconv.ParseUint(begin, 16, 64)
		to, err2 := strconv.ParseUint(end, 16, 64)
		if err1 == nil && err2 == nil && from <= address && address < to {
			if at := strings.IndexByte(rest, '/'); at >= 0 {
				return rest[at:]
			}
		}
	}
	return ""
}
