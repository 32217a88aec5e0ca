# Measures set_status of Parallel::Prefork::SpareWorkers for each line of input. Argument: calls.
use strict;
use warnings;
use Time::HiRes qw(clock_gettime CLOCK_PROCESS_CPUTIME_ID);
use Parallel::Prefork::SpareWorkers qw(:status);
use Parallel::Prefork::SpareWorkers::Scoreboard;

$| = 1;
my $calls = shift;
my $scoreboard = Parallel::Prefork::SpareWorkers::Scoreboard->new(undef, 10);
$scoreboard->child_start();
print "ready $$\n";
while (<STDIN>) {
    my $began = clock_gettime(CLOCK_PROCESS_CPUTIME_ID);
    $scoreboard->set_status($_ & 1 ? 'R' : '_') for 1 .. $calls;
    printf "status %g\n", (clock_gettime(CLOCK_PROCESS_CPUTIME_ID) - $began) * 1e9 / $calls;
}
