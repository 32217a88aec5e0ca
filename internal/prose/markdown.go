package prose

import (
	"regexp"
	"strings"
)

var (
	fence      = regexp.MustCompile("^ *(?:> *)*(?:[-*+] +|[0-9]+[.)] +)?(```+|~~~+)")
	item       = regexp.MustCompile(`^\s*(?:[-*+]|[0-9]+[.)])\s`)
	reference  = regexp.MustCompile(`^ {0,3}\[[^\]]+\]:\s`)
	comment    = regexp.MustCompile(`(?s)<!--.*?-->`)
	linkTarget = regexp.MustCompile(`\]\([^()\s]*(?:\([^()]*\)[^()\s]*)*(?:\s+"[^"]*")?\)`)
	tag        = regexp.MustCompile(`</?[a-zA-Z][^<>]*>`)
)

// Markdown counts a Markdown file.
func Markdown(name string, src []byte) Count {
	text := comment.ReplaceAllStringFunc(string(src), blank)
	var count Count
	var block []line
	flush := func() {
		if len(block) == 0 {
			return
		}
		for _, part := range cells(withoutInlineCode(block)) {
			count.Add(paragraph(name, part))
		}
		block = nil
	}
	fenced, list := "", false
	for i, text := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(text)
		if fenced != "" {
			fenced = fenceAfter(trimmed, fenced)
			continue
		}
		if match := fence.FindStringSubmatch(text); match != nil {
			flush()
			fenced = match[1]
			continue
		}
		switch {
		case trimmed == "", reference.MatchString(text):
			flush()
			continue
		case item.MatchString(text):
			flush()
			list = true
		case strings.HasPrefix(trimmed, "#"), strings.HasPrefix(trimmed, "|"):
			flush() // a heading or a row of a table ends with its line
			block = []line{{i + 1, text}}
			flush()
			continue
		case text == trimmed:
			list = list && len(block) > 0
		case !list && len(block) == 0 && isIndentedCode(text):
			continue
		}
		block = append(block, line{i + 1, text})
	}
	flush()
	return count
}

// fenceAfter returns the fence of the code block after a line in it; "" if the
// line ends the block.
func fenceAfter(text, fenced string) string {
	if strings.TrimLeft(text, fenced[:1]) == "" && len(text) >= len(fenced) {
		return ""
	}
	return fenced
}

func isIndentedCode(text string) bool {
	return strings.HasPrefix(text, "    ") || text[0] == '\t'
}

// withoutInlineCode removes inline code, which may span lines, link targets and
// tags. It keeps the number of lines.
func withoutInlineCode(lines []line) []line {
	texts := make([]string, len(lines))
	for i, l := range lines {
		texts[i] = l.text
	}
	text := strings.Join(texts, "\n")
	var kept strings.Builder
	for {
		start := strings.IndexByte(text, '`')
		if start < 0 {
			break
		}
		ticks := len(text[start:]) - len(strings.TrimLeft(text[start:], "`"))
		length := closing(text[start+ticks:], ticks)
		kept.WriteString(text[:start])
		if length < 0 {
			text = text[start+ticks:]
			continue
		}
		kept.WriteString(blank(text[start : start+ticks+length+ticks]))
		text = text[start+ticks+length+ticks:]
	}
	kept.WriteString(text)
	text = linkTarget.ReplaceAllStringFunc(kept.String(), func(s string) string { return "]" + blank(s) })
	text = tag.ReplaceAllStringFunc(text, blank)
	cleaned := make([]line, 0, len(lines))
	for i, text := range strings.Split(text, "\n") {
		cleaned = append(cleaned, line{lines[i].number, text})
	}
	return cleaned
}

// closing returns the offset of a run of exactly n backticks, or -1.
func closing(text string, n int) int {
	for at := 0; ; {
		next := strings.IndexByte(text[at:], '`')
		if next < 0 {
			return -1
		}
		at += next
		run := len(text[at:]) - len(strings.TrimLeft(text[at:], "`"))
		if run == n {
			return at
		}
		at += run
	}
}

// cells splits a row of a table, because a sentence does not span cells.
func cells(lines []line) [][]line {
	if len(lines) != 1 || !strings.HasPrefix(strings.TrimSpace(lines[0].text), "|") {
		return [][]line{lines}
	}
	var parts [][]line
	for cell := range strings.SplitSeq(lines[0].text, "|") {
		parts = append(parts, []line{{lines[0].number, cell}})
	}
	return parts
}

// blank returns only the line breaks of text, so that line numbers stay right.
func blank(text string) string {
	return " " + strings.Repeat("\n", strings.Count(text, "\n"))
}
