package drive

import (
	"fmt"
	"os"
	"strings"
	"time"
)

// progress prints how far the orders are: on a terminal one line that changes, else a
// line a second. The returned function prints the last one and ends it.
func (d *driver) progress() (stop func()) {
	every := time.Second
	if d.terminal() {
		every = 100 * time.Millisecond
	}
	quit, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		tick := time.NewTicker(every)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				d.show(false)
			case <-quit:
				d.show(true)
				return
			}
		}
	}()
	return func() {
		close(quit)
		<-ended
	}
}

func (d *driver) show(last bool) {
	const width = 30
	done, all := d.done.Load(), int64(len(d.Orders))
	filled := int(done * width / max(all, 1))
	line := fmt.Sprintf("orders         [%s%s] %d/%d, %d confirmed, %d refused, %d told",
		strings.Repeat("#", filled), strings.Repeat(".", width-filled), done, all, d.confirmed.Load(), d.refused.Load(), d.notices.Load())
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case !d.terminal():
		fmt.Fprintln(d.Out, line)
	case last:
		fmt.Fprintln(d.Out, "\r\x1b[K"+line)
	default:
		fmt.Fprint(d.Out, "\r\x1b[K"+line)
	}
}

// say prints a line above the progress.
func (d *driver) say(format string, args ...any) {
	d.mu.Lock()
	defer d.mu.Unlock()
	erase := ""
	if d.terminal() {
		erase = "\r\x1b[K"
	}
	fmt.Fprintf(d.Out, erase+format+"\n", args...)
}

// terminal reports whether a person is watching.
func (d *driver) terminal() bool {
	f, ok := d.Out.(*os.File)
	if !ok {
		return false
	}
	info, err := f.Stat()
	return err == nil && info.Mode()&os.ModeCharDevice != 0
}
