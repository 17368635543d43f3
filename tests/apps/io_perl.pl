#!/usr/bin/perl
# Ways in which Perl programs read files; each case prints what it saw. Usage: io_perl.pl CASE FILE SCRATCH
use strict;
use warnings;
use Cwd qw(realpath);
use Digest::SHA qw(sha256_hex);
use Errno;
use Fcntl qw(:seek :flock O_RDONLY);
use File::Copy;
use File::Find;
use IO::File;

$| = 1;
my ($name, $file, $scratch) = @ARGV;
sub show { my ($what, $data) = @_; printf "%s %s\n", $what, defined $data ? length($data) . ' ' . substr(sha256_hex($data), 0, 24) : 'undef ' . ($! + 0) . " $!"; }
sub opened { open my $in, '<:raw', $_[0] or die "$_[0]: $!"; return $in; }

my %cases = (
    slurp => sub {
        my $in = opened($file);
        local $/;
        show 'all', scalar <$in>;
        print eof($in) ? "eof\n" : "more\n", tell($in), "\n";
        seek $in, -1000, SEEK_END;
        show 'tail', scalar <$in>;
        seek $in, 12345, SEEK_SET;
        read $in, my $some, 54321;
        show 'some', $some;
        print tell($in), ' ', -s $in, "\n";
    },
    sysread => sub {
        sysopen my $in, $file, O_RDONLY or die $!;
        my $data;
        show 'first', sysread($in, $data, 4097) ? $data : undef;
        print sysseek($in, 0, SEEK_CUR), ' ', sysseek($in, -100, SEEK_END), "\n";
        show 'end', sysread($in, $data, 4097) ? $data : undef;
        print 'at the end ', sysread($in, $data, 10), "\n";
        show 'write', syswrite($in, 'x') ? 'written' : undef;
        print flock($in, LOCK_SH) ? "locked\n" : "$!\n";
        close $in;
    },
    lines => sub {
        open my $in, '<', 'lines.txt' or die $!;
        my ($count, $sum, $last) = (0, 0, '');
        while (<$in>) { $count++; $sum += length; $last = $_; }
        print "$count $sum $last$.\n";
        $in = opened($file);
        my $longest = 0;
        while (my $line = <$in>) { $longest = length $line if length $line > $longest; }
        print "$longest\n";
    },
    tests => sub {
        for my $path ($file, 'nested', 'nested/deep/c.bin', 'absent', 'empty.bin') {
            my @status = stat $path;
            printf "%s %s\n", $path, join ' ', map { defined && length ? $_ : 'no' } -e $path, -f _, -d _, -s _, -z _, -r _, -l $path, scalar(@status);
        }
        my @link = lstat $file;
        my $in = opened($file);
        my @open = stat $in;
        print "$link[7] $open[7] ", ($link[1] == $open[1] ? 'same' : 'other'), "\n";
        print realpath($file) eq realpath('.') . "/$file" ? "real\n" : "not real\n";
    },
    folders => sub {
        opendir my $folder, 'nested/deep' or die $!;
        print join(' ', sort readdir $folder), "\n";
        closedir $folder;
        print join(' ', sort glob('*.bin nested/*/*')), "\n";
        my %found;
        find({ wanted => sub { $found{$File::Find::name} = -s $_ if -f $_ }, no_chdir => 0 }, '.');
        print map { "$_ $found{$_}\n" } sort keys %found;
        print opendir(my $absent, 'nested/absent') ? "there\n" : "$!\n";
    },
    copy => sub {
        copy($file, "$scratch/perl-copy") or die $!;
        local $/;
        my $in = opened("$scratch/perl-copy");
        show 'copied', scalar <$in>;
        print "compared ", system('cmp', $file, "$scratch/perl-copy"), "\n";
        symlink realpath('.'), "$scratch/perl-link" or die $!;
        $in = opened("$scratch/perl-link/nested/deep/c.bin");
        show 'through a link', scalar <$in>;
    },
    fork => sub {
        my $in = opened($file);
        read $in, my $data, 8192;
        sysseek $in, 5000, SEEK_SET;
        my $pid = fork;
        if (!$pid) { sysread $in, $data, 3000; show 'child', $data; exit 3; }
        waitpid $pid, 0;
        print $? >> 8, "\n";
        sysread $in, $data, 3000;
        show 'parent', $data;
        open my $again, '<&', $in or die $!;
        print fileno($again) != fileno($in) ? sysseek($again, 0, SEEK_CUR) : 'same', "\n";
    },
    stdin => sub {
        open STDIN, '<', $file or die $!;
        print `head -c 1000 | sha256sum`;
        print `sha256sum`;
        open my $pipe, '-|', 'cat', $file or die $!;
        local $/;
        show 'pipe', scalar <$pipe>;
        close $pipe;
        print "$?\n";
    },
    layers => sub {
        for my $layer (':unix', ':stdio', ':perlio', ':crlf') {
            open my $in, "<$layer", $file or die $!;
            my $total = 0;
            while (read $in, my $data, 65521) { $total += unpack '%32C*', $data; }
            print "$layer $total\n";
            close $in;
        }
        my $in = IO::File->new($file, 'r');
        show 'line', $in->getline;
        print $in->tell, ' ', $in->opened, "\n";
    },
    inplace => sub {
        print open(my $out, '>', 'nested') ? "opened\n" : "$!\n";
        my $own = "own-$$";
        open my $new, '+>', $own or die $!;
        print $new 'text';
        seek $new, 0, SEEK_SET;
        print <$new>, ' ', -s $own, "\n";
        rename $own, "nested/$own" or die $!;
        print -s "nested/$own", ' ', -e $own ? 'old' : 'gone', "\n";
        unlink "nested/$own" or die $!;
        print stat("nested/$own") ? "there\n" : "$!\n";
    },
);
($cases{$name} or die "no case $name")->();
