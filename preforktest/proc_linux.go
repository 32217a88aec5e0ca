package preforktest

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
)

// procFile reads a file of a process. A process that ends between open and read gives ESRCH, which means no more than
// that it does not exist.
func procFile(pid int, name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), name))
	return data, gone(err)
}

func gone(err error) error {
	if errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("%w: %w", fs.ErrNotExist, err)
	}
	return err
}

// processes returns the processes that want is true for, by ascending pid. Those that end meanwhile are left out.
func processes(want func(pid int) bool) ([]Proc, error) {
	pids, err := numbers("/proc")
	if err != nil {
		return nil, err
	}
	var procs []Proc
	for _, pid := range pids {
		if !want(pid) {
			continue
		}
		if p, err := readProc(pid); err == nil {
			procs = append(procs, p)
		}
	}
	return procs, nil
}

// numbers returns the names in a directory that are numbers: processes, threads, descriptors.
func numbers(dir string) ([]int, error) {
	f, err := os.Open(dir)
	if err != nil {
		return nil, gone(err)
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	var all []int
	for _, name := range names {
		if n, err := strconv.Atoi(name); err == nil {
			all = append(all, n)
		}
	}
	return all, gone(err)
}

func readProc(pid int) (Proc, error) {
	stat, err := procFile(pid, "stat")
	if err != nil {
		return Proc{}, err
	}
	p, err := parseStat(string(stat))
	if err != nil {
		return Proc{}, err
	}
	if cmdline, err := procFile(pid, "cmdline"); err == nil && len(cmdline) > 0 {
		p.Cmdline = strings.Split(strings.TrimSuffix(string(cmdline), "\x00"), "\x00")
	}
	return p, nil
}

// parseStat reads "pid (comm) state ppid …". Comm is what the process calls itself and may hold brackets and spaces.
func parseStat(stat string) (Proc, error) {
	var p Proc
	open, end := strings.IndexByte(stat, '('), strings.LastIndexByte(stat, ')')
	if open < 0 || end < open {
		return p, fmt.Errorf("preforktest: stat without a name: %q", stat)
	}
	p.Comm = stat[open+1 : end]
	_, err := fmt.Sscanf(stat[:open], "%d ", &p.PID)
	if err == nil {
		_, err = fmt.Sscanf(stat[end+1:], " %c %d", &p.State, &p.PPID)
	}
	if err != nil {
		return p, fmt.Errorf("preforktest: stat %q: %w", stat, err)
	}
	return p, nil
}

func children(pid int) ([]Proc, error) {
	return processes(func(other int) bool {
		stat, err := procFile(other, "stat")
		if err != nil {
			return false
		}
		p, err := parseStat(string(stat))
		return err == nil && p.PPID == pid
	})
}

func descriptors(pid int) (map[int]string, error) {
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	fds, err := numbers(dir)
	if err != nil {
		return nil, err
	}
	open := make(map[int]string)
	for _, fd := range fds {
		// What is closed by now is not open: in this process, the descriptor that the directory was read from.
		if name, err := os.Readlink(filepath.Join(dir, strconv.Itoa(fd))); err == nil {
			open[fd] = name
		}
	}
	return open, nil
}

func threads(pid int) (int, error) {
	tids, err := numbers(fmt.Sprintf("/proc/%d/task", pid))
	return len(tids), err
}

func contextSwitches(pid int) (int64, error) {
	tids, err := numbers(fmt.Sprintf("/proc/%d/task", pid))
	if err != nil {
		return 0, err
	}
	var sum int64
	for _, tid := range tids {
		status, err := procFile(pid, fmt.Sprintf("task/%d/status", tid))
		if errors.Is(err, fs.ErrNotExist) {
			continue // this thread has ended
		}
		if err != nil {
			return 0, err
		}
		n, err := sumFields(status, "voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")
		if err != nil {
			return 0, err
		}
		sum += n
	}
	return sum, nil
}

func privateMemory(pid int) (int64, error) {
	rollup, err := procFile(pid, "smaps_rollup")
	if err != nil {
		return 0, err
	}
	kib, err := sumFields(rollup, "Private_Clean", "Private_Dirty")
	return kib * 1024, err
}

// sumFields adds the numbers of lines "name: number …". Each name must be there.
func sumFields(text []byte, names ...string) (sum int64, err error) {
	found := 0
	for line := range strings.Lines(string(text)) {
		name, value, _ := strings.Cut(line, ":")
		for _, want := range names {
			if name != want {
				continue
			}
			var n int64
			if _, err := fmt.Sscan(value, &n); err != nil {
				return 0, fmt.Errorf("preforktest: %q: %w", line, err)
			}
			sum += n
			found++
		}
	}
	if found != len(names) {
		return 0, fmt.Errorf("preforktest: %v: found %d", names, found)
	}
	return sum, nil
}

// carries tells whether the process was started with this variable. In a zombie nothing of it is left.
func carries(pid int, variable string) bool {
	environ, err := procFile(pid, "environ")
	return err == nil && bytes.Contains(append([]byte{0}, environ...), []byte("\x00"+variable+"\x00"))
}

// pipeName is what /proc calls the pipe, "pipe:[4711]", the same for both ends in all processes.
func pipeName(f *os.File) string {
	info, err := f.Stat()
	if err != nil {
		return ""
	}
	stat, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return ""
	}
	return fmt.Sprintf("pipe:[%d]", stat.Ino)
}

// holdsPipe tells whether the process has the pipe open for writing.
func holdsPipe(pid int, pipe string) bool {
	open, _ := descriptors(pid)
	for fd, name := range open {
		if name != pipe {
			continue
		}
		// The link's permissions are the mode in which the descriptor was opened.
		info, err := os.Lstat(fmt.Sprintf("/proc/%d/fd/%d", pid, fd))
		if err == nil && info.Mode().Perm()&0o200 != 0 {
			// A child of our own that was forked a moment ago still has all that we have open, this pipe perhaps, until it
			// runs its program: that of another test, which is not to be killed.
			process, err := readProc(pid)
			return err == nil && process.PPID != os.Getpid()
		}
	}
	return false
}
