package resources

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// killsFile is the file in which the kernel counts for workers that are started in a cgroup of the second version, or in that of
// this process where it is "". Where the first version has the memory controller, the second has not, and
// workers are in the memory cgroup of their manager.
func killsFile(cgroup string) string {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return ""
	}
	self, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	return killsFileOf(string(mounts), string(self), cgroup)
}

func killsFileOf(mounts, cgroups, cgroup string) string {
	v1, v2, top := memoryCgroups(mounts, cgroups)
	if v1 != "" {
		return existing(v1 + "/memory.oom_control")
	}
	if cgroup != "" {
		v2 = filepath.Clean(cgroup)
	}
	// Below the last cgroup that has the controller, memory is charged to that one.
	for dir := v2; len(dir) >= len(top) && top != ""; dir = filepath.Dir(dir) {
		if file := existing(dir + "/memory.events"); file != "" {
			return file
		}
		if dir == "/" {
			break
		}
	}
	return ""
}

func existing(file string) string {
	if _, err := os.Stat(file); err != nil {
		return ""
	}
	return file
}

// memoryCgroups finds the directories of a process's cgroups, by what /proc says of its mounts and its cgroups: v1 is that of the
// memory controller of the first version, v2 the one of the second version, below its mount at top; "" for one that there is
// not, or that cannot be seen from here (in a container, say).
func memoryCgroups(mounts, cgroups string) (v1, v2, top string) {
	paths := make(map[string]string) // by controller, "" for the second version
	for line := range strings.Lines(cgroups) {
		fields := strings.SplitN(strings.TrimSuffix(line, "\n"), ":", 3)
		if len(fields) < 3 {
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			paths[controller] = fields[2]
		}
	}
	unoctal := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`).Replace // a path as mountinfo writes it
	for line := range strings.Lines(mounts) {
		before, after, ok := strings.Cut(line, " - ")
		mount, kind := strings.Fields(before), strings.Fields(after)
		if !ok || len(mount) < 5 || len(kind) < 3 {
			continue
		}
		root, point := unoctal(mount[3]), unoctal(mount[4])
		switch {
		case kind[0] == "cgroup" && slices.Contains(strings.Split(kind[2], ","), "memory"):
			v1 = below(point, root, paths["memory"])
		case kind[0] == "cgroup2":
			v2, top = below(point, root, paths[""]), point
		}
	}
	return v1, v2, top
}

// below is where a path of a hierarchy is found, whose part from root down is mounted at point.
func below(point, root, path string) string {
	rest, ok := strings.CutPrefix(path+"/", strings.TrimSuffix(root, "/")+"/")
	if !ok || strings.HasPrefix(rest, "..") || path == "" {
		return ""
	}
	return filepath.Join(point, rest)
}
