package drive

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"telford.dev/telford/examples/shop/orders"
)

// look shows the shop as an operator sees it, with the command line: it asks the
// runtime, which turns JSON into the protobuf that orders speaks.
func (d *driver) look(ctx context.Context) error {
	for _, args := range [][]string{
		{"services", "list"},
		{"call", orders.Name, "shop.v1.Orders/Get", fmt.Sprintf(`{"id": %q}`, d.Orders[0].ID)},
	} {
		cmd := exec.CommandContext(ctx, d.Telford, args...)
		cmd.Env = append(os.Environ(), "TELFORD_HTTP="+d.shop.http, "TELFORD_DATA="+d.shop.data())
		var stderr bytes.Buffer
		cmd.Stderr = &stderr
		out, err := cmd.Output()
		if err != nil {
			return fmt.Errorf("telford %s: %w\n%s", strings.Join(args, " "), err, stderr.String())
		}
		fmt.Fprintf(d.Out, "\n$ telford %s\n%s", quoted(args), out)
	}
	return nil
}

// quoted writes arguments as one types them.
func quoted(args []string) string {
	words := make([]string, len(args))
	for i, a := range args {
		if words[i] = a; strings.ContainsAny(a, ` {}"`) {
			words[i] = "'" + a + "'"
		}
	}
	return strings.Join(words, " ")
}

// next says what to try now, or how to have something to try it on.
func (d *driver) next() {
	if !d.Stay {
		fmt.Fprint(d.Out, `
What to try next:
  make demo ARGS=--stay                      keeps it running, and says how to reach it
  make demo ARGS="--orders FILE"             your own orders: id, customer, sku, quantity, unit price
  make demo ARGS="--payments 5 --workers 32" more of it
  docs/guides/getting-started.md             a service of your own
`)
		return
	}
	fmt.Fprintf(d.Out, `
Everything keeps running until you interrupt it. In another terminal:
  export TELFORD_HTTP=%s TELFORD_DATA=%s
  export TELFORD_SERVER=%s TELFORD_KEY=$(cat %s/dev.key)
  telford services list
  telford services watch
  telford stream notifications follow '{"skip": %d}'
  curl -s -H "Authorization: Bearer $TELFORD_KEY" --json '{"id": %q}' $TELFORD_HTTP/call/orders/Get
  kill -9 %d            # another instance of payments
`, d.shop.http, d.shop.data(), d.shop.grpc, d.shop.data(), max(len(d.Orders)-3, 0), d.Orders[0].ID, d.shop.payments[0].cmd.Process.Pid)
}
