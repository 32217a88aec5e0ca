# A PSGI application, which knows nothing of the manager that its server runs under.
use strict;
use warnings;

sub {
    my $env = shift;
    if ($env->{PATH_INFO} eq '/slow') {
        $env->{'psgi.errors'}->print("a slow request begins\n");
        my $ends = time + 2;
        sleep 1 while time < $ends; # a signal cuts a sleep short, and not the request
        return [200, ['Content-Type' => 'text/plain'], ["slow, and not cut off\n"]];
    }
    my $generation = $ENV{SERVER_STARTER_GENERATION} // 0;
    return [200, ['Content-Type' => 'text/plain'], ["Perl of generation $generation, pid $$\n"]];
};
