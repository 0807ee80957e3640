package limit

import (
	"os"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// heavy is the size of a heavy test, divided by 100 unless the soak is on.
func heavy(n int) int {
	if os.Getenv("TELFORD_SOAK") == "1" {
		return n
	}
	return n / 100
}
