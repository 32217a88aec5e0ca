# A PSGI application. It does not depend on the manager of its server.
use strict;
use warnings;

sub {
    my $env = shift;
    if ($env->{PATH_INFO} eq '/slow') {
        $env->{'psgi.errors'}->print("slow request begins\n");
        my $end = time + 2;
        sleep 1 while time < $end; # a signal interrupts sleep
        return [200, ['Content-Type' => 'text/plain'], ["slow response, complete\n"]];
    }
    my $generation = $ENV{SERVER_STARTER_GENERATION} // 0;
    return [200, ['Content-Type' => 'text/plain'], ["Perl of generation $generation, pid $$\n"]];
};
