package resources

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
)

// plan is what a worker does to itself, in the order of the fields.
type plan struct {
	limits     []Rlimit // by Resource
	nice       int      // 0: as it is
	cpus       []int    // in order
	chroot     string
	identity   *identity // nil: as it is
	noNewPrivs bool
}

// identity is whom a process runs as.
type identity struct {
	uid, gid uint32
	groups   []uint32 // supplementary ones, in order, without gid
}

func (id identity) String() string {
	return fmt.Sprintf("user %d, group %d, supplementary groups %v", id.uid, id.gid, id.groups)
}

const (
	minNice, maxNice = -20, 19
	maxCPU           = 1023      // what the kernel's interface takes without asking how many there are
	maxID            = 1<<32 - 2 // the one above means "leave it" to the kernel
	maxGroups        = 1 << 16   // NGROUPS_MAX
	hex              = "0123456789abcdef"
)

// String writes a plan as elements "key:value" between bars: lim, nice, cpu, root, id (uid:gid:supplementary groups), nnp.
// The bytes of which it consists stand in a marker as they are; a path's others are written ~xx.
func (p plan) String() string {
	var all []string
	for _, l := range p.limits {
		all = append(all, fmt.Sprintf("lim:%s:%d:%d", l.Resource, l.Soft, l.Hard))
	}
	if p.nice != 0 {
		all = append(all, "nice:"+strconv.Itoa(p.nice))
	}
	if len(p.cpus) > 0 {
		all = append(all, "cpu:"+ranges(p.cpus))
	}
	if p.chroot != "" {
		all = append(all, "root:"+escape(p.chroot))
	}
	if id := p.identity; id != nil {
		var groups []string
		for _, g := range id.groups {
			groups = append(groups, strconv.FormatUint(uint64(g), 10))
		}
		all = append(all, fmt.Sprintf("id:%d:%d:%s", id.uid, id.gid, strings.Join(groups, ".")))
	}
	if p.noNewPrivs {
		all = append(all, "nnp:")
	}
	return strings.Join(all, "|")
}

// parsePlan reads what String writes, and nothing else: what is read must be written as it was found.
func parsePlan(text string) (p plan, err error) {
	if text == "" {
		return p, nil
	}
	for element := range strings.SplitSeq(text, "|") {
		key, value, _ := strings.Cut(element, ":")
		switch key {
		case "lim":
			err = p.parseLimit(value)
		case "nice":
			if p.nice, err = strconv.Atoi(value); err == nil && (p.nice < minNice || p.nice > maxNice || p.nice == 0) {
				err = errors.New("out of range")
			}
		case "cpu":
			p.cpus, err = parseRanges(value)
		case "root":
			if p.chroot, err = unescape(value); err == nil && (!strings.HasPrefix(p.chroot, "/") || strings.IndexByte(p.chroot, 0) >= 0) {
				err = errors.New("not an absolute path")
			}
		case "id":
			p.identity, err = parseIdentity(value)
		case "nnp":
			p.noNewPrivs = true
		default:
			err = errors.New("unknown")
		}
		if err != nil {
			return plan{}, fmt.Errorf("%q in a plan is not what a manager writes: %w", short(element), err)
		}
	}
	if p.String() != text {
		return plan{}, fmt.Errorf("the plan %q is not as a manager writes it", short(text))
	}
	return p, nil
}

func (p *plan) parseLimit(value string) error {
	parts := strings.Split(value, ":")
	if len(parts) != 3 || !slices.Contains(limitNames, parts[0]) {
		return errors.New("not a limit")
	}
	if n := len(p.limits); n > 0 && p.limits[n-1].Resource >= parts[0] {
		return errors.New("out of order")
	}
	soft, err := strconv.ParseUint(parts[1], 10, 64)
	if err != nil {
		return err
	}
	hard, err := strconv.ParseUint(parts[2], 10, 64)
	if err != nil {
		return err
	}
	if soft > hard {
		return errors.New("soft above hard")
	}
	p.limits = append(p.limits, Rlimit{parts[0], soft, hard})
	return nil
}

func parseIdentity(value string) (*identity, error) {
	parts := strings.Split(value, ":")
	if len(parts) != 3 {
		return nil, errors.New("not three parts")
	}
	var id identity
	var err error
	if id.uid, err = parseID(parts[0]); err != nil {
		return nil, err
	}
	if id.gid, err = parseID(parts[1]); err != nil {
		return nil, err
	}
	if parts[2] == "" {
		return &id, nil
	}
	for text := range strings.SplitSeq(parts[2], ".") {
		g, err := parseID(text)
		if err != nil {
			return nil, err
		}
		if n := len(id.groups); g == id.gid || n > 0 && id.groups[n-1] >= g || n == maxGroups {
			return nil, errors.New("groups out of order, twice, or too many")
		}
		id.groups = append(id.groups, g)
	}
	return &id, nil
}

// parseID reads the number of a user or a group: digits and nothing else, and never that by which the kernel means none.
func parseID(text string) (uint32, error) {
	if !digits(text) {
		return 0, fmt.Errorf("%q is not a number", short(text))
	}
	n, err := strconv.ParseUint(text, 10, 32)
	if err != nil || n > maxID {
		return 0, fmt.Errorf("%s is out of range", short(text))
	}
	return uint32(n), nil
}

func digits(s string) bool {
	return s != "" && strings.Trim(s, "0123456789") == ""
}

// ranges writes numbers that are in order: 0-3.8
func ranges(all []int) string {
	var parts []string
	for i := 0; i < len(all); {
		last := i
		for last+1 < len(all) && all[last+1] == all[last]+1 {
			last++
		}
		part := strconv.Itoa(all[i])
		if last > i {
			part += "-" + strconv.Itoa(all[last])
		}
		parts = append(parts, part)
		i = last + 1
	}
	return strings.Join(parts, ".")
}

func parseRanges(text string) (all []int, err error) {
	for part := range strings.SplitSeq(text, ".") {
		from, to, ok := strings.Cut(part, "-")
		if !ok {
			to = from
		}
		lo, errLo := strconv.Atoi(from)
		hi, errHi := strconv.Atoi(to)
		if errLo != nil || errHi != nil || lo < 0 || hi > maxCPU || lo > hi || len(all) > 0 && lo <= all[len(all)-1] {
			return nil, errors.New("not a list of CPUs")
		}
		for n := lo; n <= hi; n++ {
			all = append(all, n)
		}
	}
	return all, nil
}

func plain(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '/' || c == '.' || c == '-' || c == '_'
}

func escape(s string) string {
	b := make([]byte, 0, len(s))
	for i := range len(s) {
		if c := s[i]; plain(c) {
			b = append(b, c)
		} else {
			b = append(b, '~', hex[c>>4], hex[c&15])
		}
	}
	return string(b)
}

func unescape(s string) (string, error) {
	b := make([]byte, 0, len(s))
	for i := 0; i < len(s); i++ {
		if s[i] != '~' {
			b = append(b, s[i])
			continue
		}
		if i+2 >= len(s) {
			return "", errors.New("cut")
		}
		hi, lo := strings.IndexByte(hex, s[i+1]), strings.IndexByte(hex, s[i+2])
		if hi < 0 || lo < 0 {
			return "", errors.New("not hexadecimal")
		}
		b = append(b, byte(hi<<4|lo))
		i += 2
	}
	return string(b), nil
}

func short(s string) string {
	if len(s) > 80 {
		return s[:77] + "..."
	}
	return s
}
